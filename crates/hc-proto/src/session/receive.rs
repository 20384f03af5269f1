// SPDX-License-Identifier: Apache-2.0
//! What a frame from the peer does to the session.

use crate::error::ProtocolError;
use crate::event::Direction;
use crate::frame::{Frame, Kind};
use crate::limits::MAX_STREAMS;
use crate::message::StreamId;
use crate::session::{Pending, Role, Session, Stream};

impl Session {
    /// Takes a frame of a session that stands.
    pub(crate) fn receive(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        match frame.kind {
            Kind::Control | Kind::ControlPart => self.receive_control(frame),
            Kind::Open => self.receive_open(&frame),
            Kind::Data => self.receive_data(frame),
            Kind::Eof => self.receive_eof(&frame),
            Kind::Ack => self.receive_ack(&frame),
            Kind::Reset => self.receive_reset(&frame),
            Kind::ResetAck => self.receive_reset_ack(&frame),
            Kind::Hello | Kind::Welcome | Kind::Position | Kind::PositionsEnd => {
                Err(misplaced(&frame))
            }
        }
    }

    fn receive_control(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let last = frame.kind == Kind::Control;
        if frame.stream != 0 || (!last && frame.body.is_empty()) {
            return Err(frame.bad_body());
        }
        self.lane_recv.count(frame.body.len())?;
        if let Some(message) = self.lane_recv.join(frame.body, last)? {
            let lane_end = self.lane_recv.received;
            self.events.push_back(Pending::Control { message, lane_end });
        }
        Ok(())
    }

    fn receive_open(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        if self.role == Role::Host || self.lane_recv.is_partial() {
            return Err(misplaced(frame));
        }
        let &[byte] = frame.fixed_body()?;
        let direction = Direction::parse(byte).ok_or_else(|| frame.bad_body())?;
        let stream = frame.stream;
        if stream <= self.newest {
            return Err(ProtocolError::StreamOrder { stream, newest: self.newest });
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(ProtocolError::TooManyStreams);
        }
        self.lane_recv.count(frame.body.len())?;
        let lane_end = self.lane_recv.received;
        self.newest = stream;
        self.streams.insert(stream, Stream::new(self.role, direction, 0));
        self.events.push_back(Pending::Opened { stream, direction, lane_end });
        Ok(())
    }

    fn receive_data(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        if frame.body.is_empty() {
            return Err(frame.bad_body());
        }
        let id = frame.stream;
        let Some(stream) = self.live(&frame)? else { return Ok(()) };
        let half = stream.recv.as_mut().filter(|half| !half.ended).ok_or_else(|| closed(&frame))?;
        if !half.admits(frame.body.len()) {
            return Err(ProtocolError::WindowExceeded { stream: id });
        }
        half.accept(frame.body);
        self.note_readable(id);
        Ok(())
    }

    fn receive_eof(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        frame.fixed_body::<0>()?;
        let Some(stream) = self.live(frame)? else { return Ok(()) };
        let half = stream.recv.as_mut().filter(|half| !half.ended).ok_or_else(|| closed(frame))?;
        half.accept_end();
        self.note_readable(frame.stream);
        Ok(())
    }

    fn receive_ack(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let offset = u64::from_le_bytes(*frame.fixed_body()?);
        let id = frame.stream;
        if id == 0 {
            let fits = self.lane_send.acknowledge(offset);
            return fits.then_some(()).ok_or(ProtocolError::BadAck { stream: 0, offset });
        }
        let Some(stream) = self.live(frame)? else { return Ok(()) };
        let half = stream.send.as_mut().ok_or_else(|| closed(frame))?;
        if !half.acknowledge(offset) {
            return Err(ProtocolError::BadAck { stream: id, offset });
        }
        self.after_ack(id);
        Ok(())
    }

    fn receive_reset(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        frame.fixed_body::<0>()?;
        let id = frame.stream;
        if id == 0 || id > self.newest {
            return Err(no_such_stream(frame));
        }
        if self.streams.get(&id).is_some_and(|stream| !stream.resetting) {
            self.streams.remove(&id);
            self.schedule.forget(id);
            self.events.push_back(Pending::Reset(id));
        }
        if self.schedule.reset_acks.len() >= MAX_STREAMS {
            return Err(ProtocolError::TooManyResets);
        }
        self.schedule.reset_acks.push_back(id);
        Ok(())
    }

    fn receive_reset_ack(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        frame.fixed_body::<0>()?;
        match self.streams.get(&frame.stream) {
            Some(stream) if stream.resetting => {
                self.streams.remove(&frame.stream);
                Ok(())
            }
            _ => Err(no_such_stream(frame)),
        }
    }

    /// The stream that `frame` is for; `None` if we gave it up and the frame is to be ignored.
    fn live(&mut self, frame: &Frame) -> Result<Option<&mut Stream>, ProtocolError> {
        match self.streams.get_mut(&frame.stream) {
            Some(stream) if stream.resetting => Ok(None),
            Some(stream) => Ok(Some(stream)),
            None => Err(no_such_stream(frame)),
        }
    }

    /// Ends a sending half whose end is acknowledged; tells a starved writer that there is room.
    pub(super) fn after_ack(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(half) = &mut stream.send else { return };
        if half.is_ended() && half.is_drained() {
            stream.send = None;
            self.remove_if_over(id);
        } else if half.starved && half.space() > 0 {
            half.starved = false;
            if !std::mem::replace(&mut stream.writable, true) {
                self.events.push_back(Pending::Writable(id));
            }
        }
    }

    fn note_readable(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.readable, true)
        {
            self.events.push_back(Pending::Readable(id));
        }
    }
}

fn misplaced(frame: &Frame) -> ProtocolError {
    ProtocolError::Misplaced { kind: frame.kind as u8, during: "the session stands" }
}

fn no_such_stream(frame: &Frame) -> ProtocolError {
    ProtocolError::NoSuchStream { kind: frame.kind as u8, stream: frame.stream }
}

fn closed(frame: &Frame) -> ProtocolError {
    ProtocolError::ClosedDirection { kind: frame.kind as u8, stream: frame.stream }
}

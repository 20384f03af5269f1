// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

fn decode_all(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
    std::iter::from_fn(|| decoder.next_frame().transpose()).collect()
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let bytes = || proptest::collection::vec(any::<u8>(), 1..300);
    prop_oneof![
        bytes().prop_map(Frame::Stdin),
        Just(Frame::StdinEnd),
        (any::<u16>(), any::<u16>())
            .prop_map(|(rows, columns)| Frame::Resize(WindowSize { rows, columns })),
        bytes().prop_map(Frame::Stdout),
        bytes().prop_map(Frame::Stderr),
        Just(Frame::Started),
        (any::<u8>(), ".{0,40}")
            .prop_map(|(status, error)| Frame::Exit(ExitFrame { error, ..ExitFrame::of(status) })),
        ".{0,40}".prop_map(|text| Frame::Error(ErrorBody::new(crate::ErrorKind::Timeout, text))),
        any::<i64>().prop_map(Frame::Time),
    ]
}

proptest! {
    #[test]
    fn frames_survive_any_split(
        frames in proptest::collection::vec(any_frame(), 0..20),
        chunk in 1..64_usize,
    ) {
        let mut wire = Vec::new();
        for frame in &frames {
            frame.encode(&mut wire);
        }
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        for piece in wire.chunks(chunk) {
            decoder.feed(piece);
            got.extend(decode_all(&mut decoder).unwrap());
        }
        prop_assert_eq!(got, frames);
        prop_assert!(!decoder.is_mid_frame());
    }

    #[test]
    fn garbage_is_an_error_or_a_frame_but_never_a_panic(bytes: Vec<u8>) {
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        let _ = decode_all(&mut decoder);
    }
}

#[test]
fn a_long_body_becomes_several_frames() {
    let mut wire = Vec::new();
    Frame::Stdout(vec![7; MAX_BODY + 1]).encode(&mut wire);
    let mut decoder = Decoder::default();
    decoder.feed(&wire);
    let lengths: Vec<_> = decode_all(&mut decoder)
        .unwrap()
        .into_iter()
        .map(|frame| match frame {
            Frame::Stdout(bytes) => bytes.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [MAX_BODY, 1]);
}

#[test]
fn an_oversized_frame_is_refused_from_its_header() {
    let mut decoder = Decoder::default();
    decoder.feed(&[0x11, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(decoder.next_frame(), Err(FrameError::Oversized { length: u32::MAX }));
}

// SPDX-License-Identifier: Apache-2.0
use super::*;

fn window() -> usize {
    usize::try_from(STREAM_WINDOW).unwrap()
}

#[test]
fn single_bytes_are_gathered() {
    let mut half = SendHalf::default();
    for _ in 0..GATHER_LEN {
        assert_eq!(half.push(b"x"), 1);
    }
    assert_eq!(half.segments.len(), 1);
    assert!(
        matches!(half.next_outgoing(), Some(Outgoing::Data(_, range)) if range.len() == GATHER_LEN)
    );

    let mut half = RecvHalf::default();
    for _ in 0..GATHER_LEN {
        half.accept(b"x".to_vec());
    }
    assert_eq!(half.arrived.len(), 1);
}

/// A segment that a frame still refers to must not change under it.
#[test]
fn bytes_behind_a_frame_under_way_do_not_join_it() {
    let mut half = SendHalf::default();
    half.push(b"first");
    let Some(Outgoing::Data(first, _)) = half.next_outgoing() else { panic!("data") };
    half.push(b"second");
    assert_eq!(*first, b"first");
    let Some(Outgoing::Data(bytes, range)) = half.next_outgoing() else { panic!("data") };
    assert_eq!(bytes[range], *b"second");
}

#[test]
fn no_more_than_the_window_is_taken() {
    let mut half = SendHalf::default();
    assert_eq!(half.push(&vec![0; window() + 1]), window());
    assert!(half.starved);
    assert_eq!(half.space(), 0);
    assert!(half.push_owned(vec![0; GATHER_LEN + 1]).is_err());
    while half.next_outgoing().is_some() {}
    assert!(half.acknowledge(1000));
    assert_eq!(half.space(), 1000);
}

#[test]
fn the_end_is_sent_and_acknowledged_like_a_byte() {
    let mut half = SendHalf::default();
    half.push(b"abc");
    half.finish();
    assert_eq!((half.unsent(), half.space()), (4, 0));
    assert!(matches!(half.next_outgoing(), Some(Outgoing::Data(..))));
    assert!(matches!(half.next_outgoing(), Some(Outgoing::Eof)));
    assert!(half.next_outgoing().is_none());
    assert!(half.acknowledge(3) && !half.is_drained());
    assert!(half.rewind(3), "the end alone was lost");
    assert!(matches!(half.next_outgoing(), Some(Outgoing::Eof)));
    assert!(half.acknowledge(4) && half.is_drained());
}

#[test]
fn acknowledgements_and_positions_that_cannot_be_are_refused() {
    let mut half = SendHalf::default();
    half.push(b"abcdef");
    assert!(!half.acknowledge(1), "nothing was sent");
    while half.next_outgoing().is_some() {}
    assert!(half.acknowledge(4));
    for offset in [0, 3, 7, u64::MAX] {
        assert!(!half.acknowledge(offset), "{offset}");
        assert!(!half.rewind(offset), "{offset}");
    }
    assert!(!half.acknowledge_all(), "it has not ended");
    assert!(SendHalf::adopted(0, 0, true).is_none(), "an end that is not counted");
    assert!(SendHalf::adopted(1, 2, false).is_none(), "more consumed than received");
}

#[test]
fn acknowledgements_wait_for_a_quarter_of_the_window_or_the_end() {
    let mut half = RecvHalf::default();
    half.accept(vec![0; window()]);
    assert_eq!(half.take(), Some(Arrived::Data(vec![0; window()])));
    let threshold = usize::try_from(ACK_THRESHOLD).unwrap();
    assert_eq!(half.consume(threshold - 1), Some(Urgency::Lazy));
    assert_eq!(half.consume(1), Some(Urgency::Due));
    assert_eq!(half.next_ack(), Some(ACK_THRESHOLD));
    assert_eq!((half.consume(0), half.next_ack()), (None, None));
    half.accept_end();
    assert_eq!(half.consume(usize::MAX), Some(Urgency::Due));
    assert!(!half.is_finished(), "the end was not taken");
    assert_eq!(half.take(), Some(Arrived::Eof));
    assert_eq!(half.consume(0), Some(Urgency::Due));
    assert_eq!(half.next_ack(), Some(STREAM_WINDOW + 1));
}

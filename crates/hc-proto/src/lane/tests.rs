// SPDX-License-Identifier: Apache-2.0
use super::*;

#[test]
fn offsets_between_two_messages_only_are_acknowledged() {
    let mut lane = LaneSend::default();
    lane.push_message(b"one".to_vec()).unwrap();
    lane.push_open(1, 3).unwrap();
    while lane.next_outgoing().is_some() {}
    let (first, second) = (cost(3), cost(3) + cost(1));
    assert!(lane.rewind(first), "between the two");
    assert!(!lane.rewind(first + 1) && !lane.rewind(second), "the second is not sent again yet");
    assert!(lane.next_outgoing().is_some());
    assert!(!lane.acknowledge(second + 1));
    assert!(lane.acknowledge(second) && lane.is_drained());

    lane.push_message(b"two".to_vec()).unwrap();
    while lane.next_outgoing().is_some() {}
    assert!(!lane.acknowledge(second + 1), "in the middle of a message");
}

#[test]
fn the_lane_is_full_after_its_window() {
    let mut lane = LaneSend::default();
    let mut queued = 0;
    while lane.push_message(vec![b'x'; 1100]).is_ok() {
        queued += cost(1100);
    }
    assert!(queued <= CONTROL_WINDOW && queued > CONTROL_WINDOW - 2 * cost(1100));
    assert_eq!(lane.push_open(1, 3), Ok(queued + cost(1)), "there is room for something small");
    let too_long = vec![b'x'; MAX_MESSAGE_LEN + 1];
    assert_eq!(lane.push_message(too_long), Err(SendError::TooLong { len: MAX_MESSAGE_LEN + 1 }));
}

#[test]
fn the_longest_message_goes_through() {
    let message: Vec<u8> = (0..=255).cycle().take(MAX_MESSAGE_LEN).collect();
    let mut send = LaneSend::default();
    let mut recv = LaneRecv::default();
    send.push_message(message.clone()).unwrap();
    let mut whole = None;
    while let Some(frame) = send.next_outgoing() {
        assert_eq!(whole, None);
        recv.count(frame.body.len()).unwrap();
        whole = recv.join(frame.body.to_vec(), frame.kind == Kind::Control).unwrap();
        assert_eq!(recv.is_partial(), whole.is_none());
    }
    assert!(whole == Some(message));
    assert!(recv.consume(recv.received), "half the window is worth telling");
    assert!(send.acknowledge(recv.next_ack().unwrap()) && send.is_drained());
}

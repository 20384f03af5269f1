// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

/// A frame as bytes.
fn encode(kind: Kind, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, stream, body.len()).to_vec();
    bytes.extend_from_slice(body);
    bytes.push(END_MARK);
    bytes
}

/// Everything that comes out of `chunks`, up to the first error.
fn decode(chunks: &[&[u8]]) -> Vec<Result<Step, ProtocolError>> {
    let mut decoder = Decoder::default();
    let mut steps = Vec::new();
    for chunk in chunks {
        let mut rest = *chunk;
        while !rest.is_empty() {
            match decoder.step(&mut rest) {
                Ok(Step::Starved) => assert!(rest.is_empty()),
                step => steps.push(step),
            }
        }
    }
    steps
}

fn frame(kind: Kind, stream: u32, body: &[u8]) -> Step {
    Step::Frame(Frame { kind, stream, body: body.to_vec() })
}

#[test]
fn each_kind_has_one_number() {
    for byte in 0..=255 {
        let found = Kind::ALL.iter().filter(|kind| **kind as u8 == byte).count();
        assert_eq!(found == 1, Kind::parse(byte).is_ok());
        assert!(found <= 1);
    }
    assert!(Kind::parse(0).is_err(), "zero is padding");
}

#[test]
fn zeros_between_frames_are_skipped() {
    let eof = encode(Kind::Eof, 5, b"");
    let bytes = [&[0; 9], eof.as_slice(), &[0; 3], &eof, &[0; 100]].concat();
    let expected = [frame(Kind::Eof, 5, b""), frame(Kind::Eof, 5, b"")];
    assert_eq!(decode(&[&bytes]), expected.map(Ok));
}

/// Wherever a frame is cut off, as many zeros as a frame can have bytes end it, and what follows is
/// read.
#[test]
fn zeros_bring_a_cut_off_frame_to_its_end() {
    let whole = encode(Kind::Data, 0x0102_0304, &[0xEE; 300]);
    let next = encode(Kind::Eof, 1, b"");
    for cut in 1..whole.len() {
        let bytes = [&whole[..cut], &vec![0; crate::limits::SYNC_LEN], &next].concat();
        let steps = decode(&[&bytes]);
        let torn = Step::Torn { kind: Kind::Data as u8 };
        assert_eq!(steps, [torn, frame(Kind::Eof, 1, b"")].map(Ok), "cut at {cut}");
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_from_its_header() {
    assert_eq!(MAX_BODY_LEN, 0x8000);
    let header = [Kind::Data as u8, 0x01, 0x80, 0x00, 1, 0, 0, 0];
    let error = ProtocolError::FrameTooLong { len: MAX_BODY_LEN + 1 };
    assert_eq!(decode(&[&header]), [Err(error)]);
}

proptest! {
    #[test]
    fn frames_survive_any_split(
        frames in proptest::collection::vec(
            (0..Kind::ALL.len(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)),
            0..10,
        ),
        padding in 0..20_usize,
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        for (kind, stream, body) in &frames {
            bytes.extend(encode(Kind::ALL[*kind], *stream, body));
            bytes.extend(vec![0; padding]);
        }
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let expected: Vec<_> = frames
            .iter()
            .map(|(kind, stream, body)| Ok(frame(Kind::ALL[*kind], *stream, body)))
            .collect();
        prop_assert_eq!(decode(&chunks), expected);
    }

    #[test]
    fn noise_never_makes_it_panic_or_hold_more_than_a_frame(
        noise in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut decoder = Decoder::default();
        let mut rest = noise.as_slice();
        while !rest.is_empty() {
            let before = rest.len();
            let _ = decoder.step(&mut rest);
            prop_assert!(rest.len() < before, "each step takes at least a byte");
            prop_assert!(decoder.body.capacity() <= MAX_BODY_LEN);
        }
    }
}

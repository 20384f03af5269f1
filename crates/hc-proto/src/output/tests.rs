// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

proptest! {
    /// What goes out is what came in, whatever the lengths, and however little a write takes.
    #[test]
    fn bytes_leave_in_order(
        bodies in proptest::collection::vec((0..3000_usize, any::<bool>()), 0..20),
        takes in proptest::collection::vec((1..5000_usize, any::<bool>()), 1..20),
    ) {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for (index, (len, shared)) in bodies.iter().enumerate() {
            let body: Vec<u8> = (0..*len).map(|at| (at + index).to_le_bytes()[0]).collect();
            expected.extend_from_slice(&header(Kind::Data, 1, *len));
            expected.extend_from_slice(&body);
            expected.push(END_MARK);
            if *shared {
                output.push_shared(Kind::Data, 1, &Arc::new(body), 0..*len);
            } else {
                output.push_frame(Kind::Data, 1, &body);
            }
        }
        prop_assert_eq!(output.len(), expected.len());
        let mut written = Vec::new();
        for (take, vectored) in takes.iter().cycle() {
            if output.is_empty() {
                break;
            }
            let next = if *vectored { gather(&output) } else { output.front().to_vec() };
            prop_assert!(!next.is_empty());
            let n = next.len().min(*take);
            written.extend_from_slice(&next[..n]);
            output.advance(n);
        }
        prop_assert_eq!(written, expected);
    }
}

fn gather(output: &Output) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 3];
    let filled = output.slices(&mut slices);
    slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
}

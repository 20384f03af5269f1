// SPDX-License-Identifier: Apache-2.0
//! Names for containers whose users gave none: two words that are easy to say and to type.

use hc_spec::Name;

const FIRST: [&str; 48] = [
    "amber", "ample", "arctic", "blue", "bold", "brave", "bright", "brisk", "calm", "clear",
    "clever", "cosmic", "crisp", "eager", "early", "fair", "fleet", "fresh", "gentle", "glad",
    "golden", "grand", "green", "happy", "honest", "humble", "jolly", "keen", "kind", "light",
    "lively", "lucky", "mellow", "merry", "mild", "neat", "noble", "patient", "plain", "proud",
    "quick", "quiet", "rapid", "sharp", "silver", "steady", "sunny", "warm",
];
const SECOND: [&str; 48] = [
    "badger", "beacon", "birch", "bridge", "brook", "canyon", "cedar", "cliff", "comet", "coral",
    "crane", "creek", "delta", "falcon", "fern", "fjord", "forest", "fox", "glacier", "harbor",
    "hawk", "heron", "island", "lagoon", "lake", "lark", "maple", "meadow", "meteor", "mill",
    "moose", "oak", "orchid", "otter", "owl", "pebble", "pine", "planet", "prairie", "raven",
    "reef", "ridge", "river", "sparrow", "spruce", "stone", "valley", "willow",
];

/// A name made of random bytes. The last two become a number where `attempt` is not the first.
pub(crate) fn make(random: [u8; 4], attempt: u32) -> Name {
    let pick = |words: [&'static str; 48], byte: u8| words[usize::from(byte) % words.len()];
    let mut name = format!("{}-{}", pick(FIRST, random[0]), pick(SECOND, random[1]));
    if attempt > 0 {
        name = format!("{name}-{}", u16::from_be_bytes([random[2], random[3]]));
    }
    name.parse().expect("words and numbers joined by hyphens are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_make_a_name() {
        for byte in 0..=255 {
            make([byte, 255 - byte, byte, byte], u32::from(byte));
        }
        assert_eq!(make([0, 0, 1, 2], 0).as_str(), "amber-badger");
        assert_eq!(make([0, 0, 1, 2], 1).as_str(), "amber-badger-258");
    }
}

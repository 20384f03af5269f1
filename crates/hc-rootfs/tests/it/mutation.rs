// SPDX-License-Identifier: Apache-2.0
//! Archives with random damage: each is refused or gives a sound image, and nothing panics.

use hc_rootfs::{Builder, Limits, Options};
use proptest::prelude::*;

use crate::archive::{Archive, Header, pax_body, seal};
use crate::image::nodes;

/// An archive with one of everything.
fn sample() -> Vec<u8> {
    let mut old =
        Header { path: b"old", kind: b'S', size: 5, magic: b"ustar  \0", ..Header::default() }
            .unsealed();
    old[386..410].copy_from_slice(b"00000000012\x0000000000005\x00");
    old[483..495].copy_from_slice(b"00000000454\0");
    Archive::new()
        .extension(b'g', &pax_body(&[("mtime", b"7")]))
        .dir("d/", 0o755)
        .file("d/a", b"content")
        .link("d/b", "d/a")
        .symlink("s", "d")
        .file("s/c", &[1; 5000])
        .pax(&[("path", b"p"), ("SCHILY.xattr.user.a", b"1"), ("uid", b"70000")])
        .file("x", b"")
        .file(&"long/".repeat(30), b"")
        .pax(&[("GNU.sparse.size", b"300000"), ("GNU.sparse.map", b"10,5,200000,5")])
        .entry(Header { path: b"f", size: 10, ..Header::default() }, b"helloworld")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"200000"),
        ])
        .entry(Header { path: b"g", size: 517, ..Header::default() }, &{
            let mut body = b"1\n100000\n5\n".to_vec();
            body.resize(512, 0);
            [body.as_slice(), b"hello"].concat()
        })
        .data(&seal(old))
        .data(b"hello")
        .entry(Header { path: b"n", kind: b'3', device: (1, 3), ..Header::default() }, b"")
        .file("d/.wh.b", b"")
        .file("d/.wh..wh..opq", b"")
        .finish()
}

/// What is changed at a place in the archive.
#[derive(Clone, Debug)]
enum Damage {
    Byte {
        at: usize,
        value: u8,
    },
    /// A field with a number in it, which are what parsers trust.
    Number {
        at: usize,
        value: Vec<u8>,
    },
    Cut {
        at: usize,
    },
    Copy {
        from: usize,
        to: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let numbers: &[&[u8]] = &[
        b"77777777777",
        b"0",
        b"\x80\0\0\0\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"9",
        b"-1",
        b"\0",
        b"/",
    ];
    prop_oneof![
        4 => (0..60_000_usize, any::<u8>()).prop_map(|(at, value)| Damage::Byte { at, value }),
        4 => (0..60_000_usize, prop::sample::select(numbers.to_vec()))
            .prop_map(|(at, value)| Damage::Number { at, value: value.to_vec() }),
        1 => (0..60_000_usize).prop_map(|at| Damage::Cut { at }),
        2 => (0..60_usize, 0..60_usize).prop_map(|(from, to)| Damage::Copy { from, to }),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    match damage {
        Damage::Byte { at, value } => {
            let at = at % bytes.len();
            bytes[at] = *value;
        }
        Damage::Number { at, value } => {
            let at = at % (bytes.len() - value.len());
            bytes[at..][..value.len()].copy_from_slice(value);
        }
        Damage::Cut { at } => bytes.truncate((at % bytes.len()).max(512)),
        Damage::Copy { from, to } => {
            let blocks = bytes.len() / 512;
            let from = from % blocks * 512;
            bytes.copy_within(from..from + 512, to % blocks * 512);
        }
    }
}

/// Gives every block that looks like a header the right checksum, so that the damage gets further.
fn reseal(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = [0; 512];
            header.copy_from_slice(block);
            block.copy_from_slice(&seal(header));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_refused_or_harmless(damages in prop::collection::vec(damage(), 1..5)) {
        let mut bytes = sample();
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        reseal(&mut bytes);
        let limits = Limits { max_image_bytes: 4 << 20, ..Limits::default() };
        let file = tempfile::tempfile().unwrap();
        let builder = Builder::new(&file, Options { limits, ..Options::default() }).unwrap();
        let built = builder.add_layer(bytes.as_slice()).and_then(Builder::finish);
        if let Ok(summary) = built {
            let mut image = vec![0; usize::try_from(summary.image_bytes).unwrap()];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut image, 0).unwrap();
            prop_assert!(!nodes(&image).is_empty());
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 512..4096)) {
        let file = tempfile::tempfile().unwrap();
        let builder = Builder::new(&file, Options::default()).unwrap();
        prop_assert!(builder.add_layer(bytes.as_slice()).is_err());
    }
}

#[test]
fn the_sample_is_whole_without_damage() {
    let file = tempfile::tempfile().unwrap();
    let builder = Builder::new(&file, Options::default()).unwrap();
    let summary = builder.add_layer(sample().as_slice()).unwrap().finish().unwrap();
    assert!(summary.inodes > 10, "{summary:?}");
}

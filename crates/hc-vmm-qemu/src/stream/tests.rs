// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;

const MEMORY: u64 = 4 * PAGE as u64;

fn memory() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(MEMORY).unwrap();
    file
}

/// A stream under construction.
#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn begun() -> Stream {
        Stream::default().bytes(b"QEVM").bytes(&[0, 0, 0, 3]).bytes(b"\x07\0\0\0\x02vm")
    }

    fn bytes(mut self, bytes: &[u8]) -> Stream {
        self.0.extend_from_slice(bytes);
        self
    }

    fn name(self, name: &str) -> Stream {
        self.bytes(&[u8::try_from(name.len()).unwrap()]).bytes(name.as_bytes())
    }

    fn word(self, word: u64) -> Stream {
        self.bytes(&word.to_be_bytes())
    }

    /// The first section, up to its entries.
    fn start(self) -> Stream {
        let total = MEMORY + PAGE as u64;
        self.bytes(&[SECTION_START, 0, 0, 0, 2])
            .name("ram")
            .bytes(&[0, 0, 0, 0, 0, 0, 0, 4])
            .word(total | SIZES)
            .name("memory")
            .word(MEMORY)
            .name("bios")
            .word(PAGE as u64)
    }

    fn end(self) -> Stream {
        self.word(END).bytes(&[FOOTER, 0, 0, 0, 2])
    }

    fn part(self) -> Stream {
        self.bytes(&[SECTION_PART, 0, 0, 0, 2])
    }

    fn page(self, page: u64, byte: u8) -> Stream {
        self.word((page * PAGE as u64) | WHOLE).name("memory").bytes(&[byte; PAGE])
    }

    fn split(&self, memory: &File) -> io::Result<Vec<u8>> {
        let mut state = Vec::new();
        split(&self.0[..], "memory", memory, &mut state)?;
        Ok(state)
    }
}

#[test]
fn memory_goes_to_its_place_and_the_rest_is_a_stream() {
    let bios = |stream: Stream| stream.word(WHOLE).name("bios").bytes(&[9; PAGE]);
    let stream = Stream::begun().start().end().part().page(1, 7).page(2, 8);
    // Without a name: the one before it, also of another section.
    let stream = stream.end().part();
    let stream = stream.word((PAGE as u64 * 3) | WHOLE | SAME_BLOCK).bytes(&[5; PAGE]);
    let stream = bios(stream).end().part().word(ZERO | PAGE as u64).name("memory").bytes(&[0]);
    let stream = stream.end().bytes(&[SECTION_FULL]).bytes(b"devices");

    let file = memory();
    let state = stream.split(&file).unwrap();

    let left = bios(Stream::begun().start().end().part().end().part()).end().part().end();
    assert_eq!(state, left.bytes(&[SECTION_FULL]).bytes(b"devices").0);
    let mut pages = [0; 4 * PAGE];
    file.read_exact_at(&mut pages, 0).unwrap();
    let firsts: Vec<u8> = pages.chunks(PAGE).map(|page| page[17]).collect();
    assert_eq!(firsts, [0, 0, 8, 5]);
}

#[test]
fn untouched_memory_takes_no_room() {
    use std::os::unix::fs::MetadataExt as _;
    let file = memory();
    let stream = Stream::begun().start().word(ZERO).name("memory").bytes(&[0]).end();
    stream.bytes(&[SECTION_FULL]).split(&file).unwrap();
    assert_eq!(file.metadata().unwrap().blocks(), 0);
}

#[test]
fn what_a_hostile_qemu_sends_is_refused() {
    let full = |stream: Stream| stream.end().bytes(&[SECTION_FULL]);
    let cases = [
        ("begin", Stream::default().bytes(b"QEVM\0\0\0\x02")),
        ("outside", full(Stream::begun().start().page(4, 1))),
        ("unknown", Stream::begun().bytes(&[0x55])),
        ("entry", Stream::begun().start().word(0x100)),
        ("besides", Stream::begun().bytes(&[SECTION_START, 0, 0, 0, 1]).name("block")),
        (
            "as long",
            Stream::begun()
                .bytes(&[SECTION_START, 0, 0, 0, 2])
                .name("ram")
                .bytes(&[0; 8])
                .word(8192 | SIZES)
                .name("memory")
                .word(8192),
        ),
        (
            "sizes",
            Stream::begun()
                .bytes(&[SECTION_START, 0, 0, 0, 2])
                .name("ram")
                .bytes(&[0; 8])
                .word(8192 | SIZES)
                .name("bios")
                .word(0),
        ),
    ];
    for (reason, stream) in cases {
        let error = stream.split(&memory()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{reason}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    let endless = Stream::begun().start().end().bytes(&[SECTION_FULL]);
    let input = endless.0.as_slice().chain(io::repeat(1));
    let error = split(input, "memory", &memory(), io::sink()).unwrap_err();
    assert!(error.to_string().contains("no end"), "{error}");
}

proptest! {
    /// A stream that ends early, or is garbled, is an error or a shorter state, and never a panic.
    #[test]
    fn any_bytes_are_survived(cut in 0..9000_usize, at in 0..9000_usize, byte: u8) {
        let stream = Stream::begun().start().page(1, 7).end().part().page(0, 1).end();
        let mut bytes = stream.bytes(&[SECTION_FULL, 1, 2, 3]).0;
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        let _ = split(&bytes[..], "memory", &memory(), io::sink());
    }
}

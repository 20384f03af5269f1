// SPDX-License-Identifier: Apache-2.0
use std::fs::OpenOptions;
use std::io::Write as _;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn read_all(reader: &mut LogReader) -> Vec<(Source, Vec<u8>)> {
    std::iter::from_fn(|| reader.next_entry().unwrap().map(|entry| (entry.source, entry.bytes)))
        .collect()
}

#[test]
fn entries_come_back_in_order_with_their_time_and_stream() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LogLimits::default()).unwrap();
    let time = Timestamp::from_second(1_700_000_000).unwrap();
    writer.append(Source::Stdout, time, b"one\n").unwrap();
    writer.append(Source::Stderr, time, b"\xff two").unwrap();

    let mut reader = LogReader::open(dir.path());
    let first = reader.next_entry().unwrap().unwrap();
    assert_eq!(first, Entry { time, source: Source::Stdout, bytes: b"one\n".to_vec() });
    assert_eq!(read_all(&mut reader), [(Source::Stderr, b"\xff two".to_vec())]);
    assert_eq!(count_lines(dir.path()).unwrap(), 2);

    writer.append(Source::Stdout, time, b" and on\n").unwrap();
    assert_eq!(read_all(&mut reader), [(Source::Stdout, b" and on\n".to_vec())]);
    assert_eq!(count_lines(dir.path()).unwrap(), 3);
    writer.append(Source::Stderr, time, b" goes on\nand on").unwrap();
    assert_eq!(count_lines(dir.path()).unwrap(), 4);
}

#[test]
fn a_log_that_is_not_there_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = LogReader::open(&dir.path().join("none"));
    assert_eq!(reader.next_entry().unwrap(), None);
}

#[test]
fn a_torn_last_entry_is_not_read_and_the_next_writer_goes_on_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let whole = {
        let mut writer = LogWriter::open(dir.path(), LogLimits::default()).unwrap();
        writer.append(Source::Stdout, now, b"whole\n").unwrap();
        std::fs::metadata(segment_path(dir.path(), 1)).unwrap().len()
    };
    {
        let mut writer = LogWriter::open(dir.path(), LogLimits::default()).unwrap();
        writer.append(Source::Stdout, now, b"to be torn\n").unwrap();
    }
    let full = std::fs::metadata(segment_path(dir.path(), 1)).unwrap().len();
    for cut in whole..full {
        let file = OpenOptions::new().write(true).open(segment_path(dir.path(), 1)).unwrap();
        file.set_len(cut).unwrap();
        assert_eq!(read_all(&mut LogReader::open(dir.path())).len(), 1, "cut at {cut}");

        let mut writer = LogWriter::open(dir.path(), LogLimits::default()).unwrap();
        writer.append(Source::Stdout, now, b"to be torn\n").unwrap();
        assert_eq!(read_all(&mut LogReader::open(dir.path())).len(), 2, "cut at {cut}");
    }
}

#[test]
fn a_full_disk_leaves_whole_entries() {
    let Ok(mut full) = OpenOptions::new().write(true).open("/dev/full") else {
        return eprintln!("skipped: no /dev/full");
    };
    assert!(full.write_all(b"x").is_err());
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", segment_path(dir.path(), 2)).unwrap();
    let limits = LogLimits { segment_bytes: 30, segments: 2 };
    let mut writer = {
        let path = segment_path(dir.path(), 1);
        std::fs::write(path, b"").unwrap();
        std::fs::remove_file(segment_path(dir.path(), 2)).unwrap();
        LogWriter::open(dir.path(), limits).unwrap()
    };
    std::os::unix::fs::symlink("/dev/full", segment_path(dir.path(), 2)).unwrap();
    writer.append(Source::Stdout, Timestamp::now(), b"fits").unwrap();
    writer.append(Source::Stdout, Timestamp::now(), b"does not fit").unwrap_err();
    std::fs::remove_file(segment_path(dir.path(), 2)).unwrap();
    assert_eq!(read_all(&mut LogReader::open(dir.path())), [(Source::Stdout, b"fits".to_vec())]);
}

proptest! {
    #[test]
    fn a_follower_that_keeps_up_sees_everything_across_segments(
        writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { segment_bytes: 300, segments: 2 };
        let mut writer = LogWriter::open(dir.path(), limits).unwrap();
        let mut reader = LogReader::open(dir.path());
        for bytes in &writes {
            writer.append(Source::Stdout, Timestamp::now(), bytes).unwrap();
            prop_assert_eq!(read_all(&mut reader), vec![(Source::Stdout, bytes.clone())]);
        }
        prop_assert!(segments(dir.path()).unwrap().len() <= 2);
    }
}

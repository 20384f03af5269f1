// SPDX-License-Identifier: Apache-2.0

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::virtio::guest::{Guest, MEMORY_LEN};

const SECTORS: u64 = 8;
const OK: u32 = VIRTIO_BLK_S_OK;
const ERROR: u32 = VIRTIO_BLK_S_IOERR;
const UNSUPPORTED: u32 = VIRTIO_BLK_S_UNSUPP;

/// A disk of eight sectors and a half, whose bytes are the numbers of their sectors.
fn disk(read_only: bool) -> (Guest, File) {
    let file = tempfile::tempfile().unwrap();
    for sector in 0..SECTORS {
        file.write_all_at(&[u8::try_from(sector).unwrap(); 512], sector * 512).unwrap();
    }
    file.write_all_at(&[0xee; 256], SECTORS * 512).unwrap();
    let ours = file.try_clone().unwrap();
    (Guest::new(Block::new(file, "disk-id", Access { read_only, durable: true }).unwrap()), ours)
}

fn request(kind: u32, sector: u64, data: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes(), data].concat()
}

fn range(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// Asks, and gives the status and what comes before it.
fn ask(guest: &mut Guest, request: &[u8], room: usize) -> (u32, Vec<u8>) {
    let at = guest.send(0, request, room + 1);
    let len = guest.answered(0).expect("a disk answers at once");
    let whole = guest.memory_at(at, room + 1);
    assert!(len <= whole.len());
    (whole[room].into(), whole[..len - 1].to_vec())
}

fn sector(file: &File, number: u64) -> u8 {
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, number * 512).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "sector {number} is torn");
    bytes[0]
}

#[test]
fn reads_and_writes_stay_inside() {
    let (mut guest, file) = disk(false);
    let (status, bytes) = ask(&mut guest, &request(VIRTIO_BLK_T_IN, 6, &[]), 1024);
    assert_eq!((status, bytes.len(), bytes[0], bytes[1023]), (OK, 1024, 6, 7));
    for (at, room) in [(7, 1024), (8, 512), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)] {
        assert_eq!(ask(&mut guest, &request(VIRTIO_BLK_T_IN, at, &[]), room).0, ERROR, "{at}");
        let write = request(VIRTIO_BLK_T_OUT, at, &vec![9; room]);
        assert_eq!(ask(&mut guest, &write, 0).0, ERROR, "{at}");
    }
    assert_eq!(ask(&mut guest, &request(VIRTIO_BLK_T_OUT, 7, &[9; 512]), 0).0, OK);
    assert_eq!((sector(&file, 6), sector(&file, 7)), (6, 9));
    assert_eq!(file.metadata().unwrap().len(), SECTORS * 512 + 256);
    let mut rest = [0; 256];
    file.read_exact_at(&mut rest, SECTORS * 512).unwrap();
    assert_eq!(rest, [0xee; 256]);
}

#[test]
fn ranges_to_clear_stay_inside() {
    let (mut guest, file) = disk(false);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        for bad in [range(7, 2, 0), range(8, 1, 0), range(u64::MAX, 1, 0), range(0, u32::MAX, 1)] {
            assert_eq!(ask(&mut guest, &request(kind, 0, &bad), 0).0, ERROR);
        }
        let many: Vec<u8> = (0..17).flat_map(|_| range(0, 1, 0)).collect();
        assert_eq!(ask(&mut guest, &request(kind, 0, &many), 0).0, UNSUPPORTED);
        assert_eq!(ask(&mut guest, &request(kind, 0, &range(0, 0, 0)), 0).0, OK);
    }
    assert_eq!((0..SECTORS).map(|at| sector(&file, at)).max(), Some(7));
    assert_eq!(ask(&mut guest, &request(VIRTIO_BLK_T_DISCARD, 0, &range(3, 2, 0)), 0).0, OK);
    let content: Vec<u8> = (0..SECTORS).map(|at| sector(&file, at)).collect();
    assert_eq!(content, [0, 1, 2, 0, 0, 5, 6, 7]);
    assert_eq!(file.metadata().unwrap().len(), SECTORS * 512 + 256);
}

#[test]
fn read_only_disk_takes_no_change() {
    let (mut guest, file) = disk(true);
    for (kind, data) in [
        (VIRTIO_BLK_T_OUT, vec![9; 512]),
        (VIRTIO_BLK_T_DISCARD, range(0, 1, 0)),
        (VIRTIO_BLK_T_WRITE_ZEROES, range(0, 1, 1)),
    ] {
        assert_eq!(ask(&mut guest, &request(kind, 1, &data), 0).0, ERROR);
    }
    assert_eq!((0..SECTORS).map(|at| sector(&file, at)).max(), Some(7));
    assert_eq!(sector(&file, 1), 1);
    assert_eq!(ask(&mut guest, &request(VIRTIO_BLK_T_FLUSH, 0, &[]), 0).0, OK);
}

#[test]
fn requests_without_sense_are_answered() {
    let (mut guest, _) = disk(false);
    assert_eq!(ask(&mut guest, &[0; 15], 0).0, UNSUPPORTED);
    assert_eq!(ask(&mut guest, &request(77, 0, &[]), 0).0, UNSUPPORTED);
    let (status, id) = ask(&mut guest, &request(VIRTIO_BLK_T_GET_ID, 0, &[]), 20);
    assert_eq!((status, &id[..7], &id[7..]), (OK, &b"disk-id"[..], &[0; 13][..]));
    // Nowhere to put the status.
    assert_eq!(guest.ask(0, &request(VIRTIO_BLK_T_IN, 0, &[]), 0), Some(Vec::new()));
}

#[test]
fn descriptors_outside_memory_are_given_back_unread() {
    let (mut guest, file) = disk(false);
    for (at, len) in [(MEMORY_LEN, 512), (MEMORY_LEN - 1, 512), (u64::MAX, 512), (0, u32::MAX)] {
        guest.put(0, &[(0x20000, 16, false), (at, len, true), (0x20100, 1, true)]);
        guest.kick(0);
        assert_eq!(guest.answered(0), Some(0), "{at:#x}");
    }
    assert_eq!(ask(&mut guest, &request(VIRTIO_BLK_T_OUT, 0, &[9; 512]), 0).0, OK);
    assert_eq!(sector(&file, 0), 9);
}

#[test]
fn replaced_disk_is_another_file_of_another_size() {
    let (mut guest, before) = disk(false);
    let after = tempfile::tempfile().unwrap();
    after.set_len(100 * 512 + 1).unwrap();
    let ours = after.try_clone().unwrap();
    let named = |id: &str| guest.slot().with_disk(|disk| disk.is(id)).unwrap();
    assert_eq!(["disk-id", "disk", "disk-id2", ""].map(named), [true, false, false, false]);
    guest.slot().with_disk(|disk| disk.replace(after)).unwrap().unwrap();
    assert_eq!((guest.read(0x100), guest.read(0x104)), (100, 0));
    let write = request(VIRTIO_BLK_T_OUT, 99, &[9; 512]);
    assert_eq!(ask(&mut guest, &write, 0).0, OK);
    let write = request(VIRTIO_BLK_T_OUT, 0, &[9; 512]);
    assert_eq!(ask(&mut guest, &write, 0).0, OK);
    assert_eq!((sector(&ours, 99), sector(&before, 0)), (9, 0));
}

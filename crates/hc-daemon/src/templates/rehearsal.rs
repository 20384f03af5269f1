// SPDX-License-Identifier: Apache-2.0
//! The root file system of the pod that is rehearsed in VMs before they wait: one program.

use std::fs::File;
use std::io::{self, Cursor, Read as _};
use std::path::Path;

use hc_pod::ROOTFS_MAX;

/// Bytes of a tar archive come in blocks of this many.
const BLOCK: usize = 512;

/// Makes the sparse file `out`, as large as any root file system, with `program` as `/program`. A kill
/// at any instant leaves the old file, the new one, or none.
pub(crate) fn make(program: &Path, out: &Path) -> io::Result<()> {
    let mut bytes = Vec::new();
    File::open(program)?.read_to_end(&mut bytes)?;
    let temporary = out.with_extension("tmp");
    let file =
        File::options().create(true).truncate(true).read(true).write(true).open(&temporary)?;
    let built = hc_rootfs::Builder::new(&file, hc_rootfs::Options::default())
        .and_then(|builder| builder.add_layer(Cursor::new(layer(&bytes))))
        .and_then(hc_rootfs::Builder::finish);
    built.map_err(io::Error::other)?;
    file.set_len(ROOTFS_MAX)?;
    std::fs::rename(&temporary, out)
}

/// A tar archive with that one file (POSIX.1-2017, pax, "ustar Interchange Format").
fn layer(program: &[u8]) -> Vec<u8> {
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "program");
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", program.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(program);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let (program, out) = (dir.path().join("program"), dir.path().join("out"));
        // Whole blocks: the end of a file is elsewhere.
        let content = b"a program that's some 32 bytes.\n".repeat(4096 / 32 * 3);
        std::fs::write(&program, &content).unwrap();
        make(&program, &out).unwrap();
        let mut image = Vec::new();
        let file = File::open(&out).unwrap();
        assert_eq!(file.metadata().unwrap().len(), ROOTFS_MAX);
        file.take(1 << 20).read_to_end(&mut image).unwrap();
        assert!(image.windows(content.len()).any(|window| window == content));
        assert!(!dir.path().join("out.tmp").exists());
    }
}

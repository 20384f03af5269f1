// SPDX-License-Identifier: Apache-2.0
//! Kernel files made up, damaged, and the one that was really built.

use std::io::Write;

use expect_test::{Expect, expect};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::modinfo;
use crate::requirement::Transport;

/// The smallest ELF file that passes as a kernel: one loaded segment with `text`, one note.
fn vmlinux(text: &[u8], pvh_entry: Option<u32>) -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    for (at, value) in [(16, 2), (18, 62), (32, 64), (54, 56), (56, 2)] {
        file[at] = value;
    }
    let mut note = Vec::new();
    if let Some(entry) = pvh_entry {
        for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry] {
            note.extend_from_slice(&word.to_le_bytes());
        }
    }
    for (number, kind, contents) in [(0, 1, text), (1, 4, &note[..])] {
        let at = 64 + number * 56;
        file[at] = kind;
        let offset = file.len() as u64;
        file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        file[at + 32..at + 40].copy_from_slice(&(contents.len() as u64).to_le_bytes());
        file.extend_from_slice(contents);
    }
    file
}

/// What a kernel built with these options has in its data.
fn text_with(config: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(config.as_bytes()).unwrap();
    let mut text =
        b"Linux version %s\0Linux version 6.1.192-test (me@here) #1\n\0IKCFG_ST".to_vec();
    text.extend(gzip.finish().unwrap());
    text.extend(b"IKCFG_ED");
    text
}

/// The options of a kernel that fits, as text.
fn full_config(transport: Transport) -> String {
    let requirements = Requirements::pod().with_transport(transport);
    let line = |required: &Requirement| format!("CONFIG_{}=y\n", required.option);
    requirements.list().iter().map(line).collect::<Vec<_>>().concat()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn inspect(bytes: &[u8]) -> Result<Kernel, Error> {
    let dir = tempfile::tempdir().unwrap();
    Kernel::inspect(&write(dir.path(), "kernel", bytes))
}

#[test]
fn vmlinux_tells_entry_release_and_options() {
    let kernel = inspect(&vmlinux(&text_with("CONFIG_PVH=y\n"), Some(0x100_0450))).unwrap();
    assert_eq!(kernel.image(), Image::Elf { pvh_entry: Some(0x100_0450) });
    assert_eq!(kernel.release(), Some("6.1.192-test"));
    assert!(kernel.config().unwrap().is_built_in("PVH"));
}

#[test]
fn what_is_no_kernel_is_named() {
    let mut library = vmlinux(b"", None);
    library[16] = 3;
    let mut old = crate::bzimage::tests::image(b"2.6.8");
    old[0x206] = 0;
    let mut answers = String::new();
    for bytes in [
        &b""[..],
        b"#!/bin/sh\n",
        b"\x1f\x8b\x08",
        b"070701",
        b"hello",
        &vmlinux(b"a program", None),
        &library,
        &old,
    ] {
        let error = inspect(bytes).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::InvalidArgument);
        answers += error.to_string().split_once("booted: ").unwrap().1;
        answers += "\n";
    }
    expect![[r"
        it is empty
        it is a script
        it is compressed with gzip
        it is a cpio archive, perhaps an initramfs
        it is of an unknown kind
        it is an ELF program
        it is an ELF file that is no x86-64 kernel
        it is a kernel for 32-bit machines
    "]]
    .assert_eq(&answers);
}

#[test]
fn directory_and_missing_file_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let error = Kernel::inspect(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("it is a directory"), "{error}");
    let error = Kernel::inspect(&dir.path().join("none")).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::NotFound);
}

#[track_caller]
fn check_fitness(kernel: &Kernel, requirements: Requirements, expected: Expect) {
    let answer = match kernel.require(&requirements) {
        Ok(()) => format!("{:?}\n", kernel.fitness(&requirements)),
        Err(error) => {
            let path = kernel.path().to_str().unwrap();
            format!("{error}\n").replace(path, "PATH")
        }
    };
    expected.assert_eq(&answer);
}

#[test]
fn missing_options_are_named() {
    let config = full_config(Transport::MmioCommandLine)
        .replace("CONFIG_EROFS_FS=y\n", "# CONFIG_EROFS_FS is not set\n")
        .replace("CONFIG_OVERLAY_FS=y\n", "CONFIG_OVERLAY_FS=m\n")
        .replace("CONFIG_VIRTIO_MMIO=y\n", "CONFIG_VIRTIO_MMIO=m\n");
    let kernel = inspect(&vmlinux(&text_with(&config), None)).unwrap();
    check_fitness(
        &kernel,
        Requirements::pod().with_transport(Transport::MmioCommandLine).with_pvh(),
        expect![[r"
            kernel PATH lacks options that a pod needs: CONFIG_PVH, CONFIG_VIRTIO_MMIO (must be built in), CONFIG_EROFS_FS, CONFIG_OVERLAY_FS (its module is not there)
        "]],
    );
    let transports = kernel.transports().unwrap();
    assert_eq!(transports, Transports { mmio_command_line: false, mmio_acpi: false, pci: false });
}

#[test]
fn kernel_with_everything_fits() {
    let text = text_with(&full_config(Transport::MmioCommandLine));
    let kernel = inspect(&vmlinux(&text, Some(1))).unwrap();
    let requirements = Requirements::pod().with_transport(Transport::MmioCommandLine).with_pvh();
    assert_eq!(kernel.fitness(&requirements), Fitness::Fits);
    assert!(kernel.transports().unwrap().mmio_command_line);
    assert!(kernel.modules(&requirements).unwrap().is_empty());
}

#[test]
fn kernel_without_configuration_is_unknown_and_passes() {
    let kernel = inspect(&vmlinux(b"Linux version 0.0.1-nobody-has-this \0", Some(1))).unwrap();
    let requirements = Requirements::pod().with_pvh();
    assert_eq!(kernel.fitness(&requirements), Fitness::Unknown);
    assert_eq!(kernel.transports(), None);
    kernel.require(&requirements).unwrap();
}

#[test]
fn damaged_embedded_configuration_is_an_error() {
    let mut text = text_with("CONFIG_A=y\n");
    text.truncate(text.len() - 16);
    let error = inspect(&vmlinux(&text, Some(1))).unwrap_err();
    assert!(error.to_string().ends_with("the embedded copy cannot be unpacked"), "{error}");
}

/// An unpacked distribution package: the kernel in `boot`, its modules in `lib` or `usr/lib`.
fn package(dir: &Path, lib: &str, index: bool) -> PathBuf {
    let release = "6.1.0-test-amd64";
    let tree = format!("{lib}/modules/{release}");
    let config = full_config(Transport::Pci)
        .replace("CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=m")
        .replace("CONFIG_EROFS_FS=y", "CONFIG_EROFS_FS=m");
    write(dir, &format!("boot/config-{release}"), config.as_bytes());
    write(dir, &format!("{tree}/modules.builtin"), b"kernel/fs/ext4.ko\n");
    if index {
        let dep = b"kernel/virtio_pci.ko.xz: kernel/virtio.ko.xz\nkernel/virtio.ko.xz:\n\
            kernel/erofs.ko.xz:\nkernel/virtio_rng.ko.xz:\n";
        write(dir, &format!("{tree}/modules.dep"), dep);
    } else {
        write(dir, &format!("{tree}/modules.order"), b"virtio_pci.ko\nvirtio.ko\nerofs.ko\n");
        for (name, depends) in [("virtio_pci", "virtio"), ("virtio", ""), ("erofs", "")] {
            let modinfo = format!("depends={depends}\0");
            let bytes = modinfo::tests::module(modinfo.as_bytes());
            write(dir, &format!("{tree}/{name}.ko"), &bytes);
        }
    }
    let version = format!("{release} (someone@somewhere) #1 SMP");
    write(
        dir,
        &format!("boot/vmlinuz-{release}"),
        &crate::bzimage::tests::image(version.as_bytes()),
    )
}

#[test]
fn unpacked_package_is_used_as_a_whole() {
    for (lib, index, expected) in [
        ("lib", true, vec!["virtio_rng", "virtio", "virtio_pci", "erofs"]),
        ("usr/lib", true, vec!["virtio_rng", "virtio", "virtio_pci", "erofs"]),
        ("lib", false, vec!["virtio", "virtio_pci", "erofs"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let kernel = Kernel::inspect(&package(dir.path(), lib, index)).unwrap();
        assert_eq!(kernel.image(), Image::BzImage);
        let requirements = Requirements::pod().with_transport(Transport::Pci).with_pvh();
        assert_eq!(kernel.fitness(&requirements), Fitness::Fits);
        let modules = kernel.modules(&requirements).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, expected);
        assert!(modules.iter().all(|module| module.compressed == index));
    }
}

#[test]
fn kernel_named_by_a_link_finds_what_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = package(dir.path(), "lib", true);
    let link = dir.path().join("vmlinuz");
    std::os::unix::fs::symlink(kernel, &link).unwrap();
    let kernel = Kernel::inspect(&link).unwrap();
    assert!(kernel.config().is_some() && kernel.module_tree().is_some());
}

#[test]
fn built_kernel_fits_every_transport() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/lib/hyper/vmlinux");
    if !path.exists() {
        eprintln!("skipped: {} is not built", path.display());
        return;
    }
    let kernel = Kernel::inspect(&path).unwrap();
    assert!(matches!(kernel.image(), Image::Elf { pvh_entry: Some(_) }));
    assert!(kernel.release().unwrap().ends_with("-hyper"), "{:?}", kernel.release());
    let every = Transports { mmio_command_line: true, mmio_acpi: true, pci: true };
    assert_eq!(kernel.transports(), Some(every));
    for transport in [Transport::MmioCommandLine, Transport::MmioAcpi, Transport::Pci] {
        let requirements = Requirements::pod().with_transport(transport).with_pvh();
        assert_eq!(kernel.fitness(&requirements), Fitness::Fits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_kernel_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = vmlinux(&text_with("CONFIG_A=y\n"), Some(1));
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(keep.index(bytes.len()) + 1);
        let _ = inspect(&bytes);
    }
}

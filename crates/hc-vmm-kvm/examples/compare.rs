// SPDX-License-Identifier: Apache-2.0
//! How long `hyper-vmm` takes, and how much memory, beside QEMU with KVM on the same kernel, and what
//! copies of a guest cost and save: `compare HYPER_VMM KERNEL HYPERSTART [ROUNDS]`, where KVM works.
//!
//! It ends with 77 where KVM is not real. The drivers take turns, so that whatever else the machine does hits both.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures are what it is for")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hc_guest::Guest;
use hc_vmm::{Driver, Saved, Transport, Vm, VmSpec};
use hc_vmm_kvm::Kvm;
use hc_vmm_qemu::{Accelerator, Qemu};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const NO_KVM: u8 = 77;
const MEMORY_MIB: u32 = 128;
/// Far more than a start takes where even the processor is emulated.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let probe = hc_kvm_probe::probe();
    if !probe.is_usable() {
        eprintln!("{probe}");
        return Ok(ExitCode::from(NO_KVM));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, kernel, init, rest @ ..] = arguments.as_slice() else {
        return Err("usage: compare HYPER_VMM KERNEL HYPERSTART [ROUNDS]".into());
    };
    let rounds: usize = rest.first().map_or(Ok(7), |rounds| rounds.parse())?;
    let dir = tempfile::tempdir()?;
    let initramfs = hc_kernel::initramfs::cached(dir.path(), Path::new(init), &[])?;
    let first_instruction = dir.path().join("first-instruction");
    std::fs::write(&first_instruction, speaking_kernel())?;
    let drivers: [(&str, Box<dyn Driver>); 2] = [
        ("kvm", Box::new(Kvm::at(program.into()))),
        ("qemu", Box::new(Qemu::find(Accelerator::Kvm)?)),
    ];
    let mut taken: [[Vec<Duration>; 2]; 4] = Default::default();
    let mut memory = [0; 2];
    for _ in 0..rounds {
        for (index, (_, driver)) in drivers.iter().enumerate() {
            let spec = |kernel: PathBuf| spec(dir.path(), kernel, &initramfs);
            let (first, _) = start(&**driver, spec(first_instruction.clone()), false).await?;
            let (ready, vm) = start(&**driver, spec(kernel.into()), true).await?;
            memory[index] = overhead_kib(vm.process_id().ok_or("the VM is a process")?)?;
            let (held, saved) = copy(vm).await?;
            let again = VmSpec { saved: Some(saved), ..spec(kernel.into()) };
            let (went_on, _) = start(&**driver, again, true).await?;
            for (figures, figure) in taken.iter_mut().zip([first, ready, held, went_on]) {
                figures[index].push(figure);
            }
        }
    }
    let whats = ["first instruction", "hyperstart ready", "held for a copy", "copy ready"];
    for (what, [kvm, qemu]) in whats.iter().zip(taken) {
        let (kvm, qemu) = (median(kvm), median(qemu));
        let ratio = kvm.as_secs_f64() / qemu.as_secs_f64();
        println!("{what:<20} kvm {kvm:>7.1?}  qemu {qemu:>7.1?}  ratio {ratio:.2}");
    }
    let [kvm, qemu] = memory;
    println!("{:<20} kvm {kvm:>5} KiB  qemu {qemu:>5} KiB", "beyond the guest's");
    Ok(ExitCode::SUCCESS)
}

fn spec(dir: &Path, kernel: PathBuf, initramfs: &Path) -> VmSpec {
    VmSpec {
        name: "compare".to_owned(),
        run_dir: dir.to_owned(),
        kernel,
        initramfs: initramfs.to_owned(),
        kernel_parameters: "quiet".to_owned(),
        transport: Transport::Mmio,
        vcpus: 1,
        memory_mib: MEMORY_MIB,
        disks: Vec::new(),
        nic: None,
        shares: Vec::new(),
        saved: None,
        confine: None,
    }
}

/// Starts a VM and waits for its first byte on the console, or for its init's welcome.
async fn start(driver: &dyn Driver, spec: VmSpec, init: bool) -> Result<(Duration, Box<dyn Vm>)> {
    let begin = Instant::now();
    let mut vm = driver.create(spec).await?;
    let stream = if init { vm.channel() } else { vm.console() };
    let mut stream = UnixStream::from_std(stream.ok_or("a new VM has its streams")?)?;
    vm.start().await?;
    if init {
        if let Err(error) = Guest::connect(stream, DEADLINE).await {
            let mut said = String::new();
            let console = vm.console().ok_or("a new VM has its streams")?;
            vm.kill().await?;
            UnixStream::from_std(console)?.read_to_string(&mut said).await?;
            return Err(format!("{}: {error}: {said}", driver.name()).into());
        }
    } else {
        tokio::time::timeout(DEADLINE, stream.read_u8()).await??;
    }
    Ok((begin.elapsed(), vm))
}

/// Copies a guest to memory; says for how long it stood still.
async fn copy(mut vm: Box<dyn Vm>) -> Result<(Duration, Saved)> {
    let file = |name| Ok::<_, std::io::Error>(memfd_create(name, MemfdFlags::CLOEXEC)?.into());
    let saved = Saved { memory: file("memory")?, state: file("state")? };
    let snapshot = vm.snapshot().ok_or("both drivers can copy")?;
    let since = snapshot.take(&saved.memory, &saved.state).await?;
    vm.pause().ok_or("both drivers can hold")?.release().await?;
    Ok((since.elapsed(), saved))
}

/// The process's share of memory (PSS) without the guest's memory.
fn overhead_kib(process: u32) -> Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/smaps"))?;
    let mut pieces: Vec<(u64, u64, u64)> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let parse = |text| u64::from_str_radix(text, 16);
            pieces.push((parse(start)?, parse(end)?, 0));
        } else if first == "Pss:"
            && let (Some(piece), Some(kib)) = (pieces.last_mut(), words.next())
        {
            piece.2 = kib.parse()?;
        }
    }
    let guest = guest_memory(&pieces).ok_or("the guest's memory is not to be found")?;
    Ok(pieces.iter().filter(|piece| !guest.contains(&piece.0)).map(|piece| piece.2).sum())
}

/// The pieces, one after the other, that together have the size of the guest's memory. Where an
/// allocator's reserves look the same, it is those that are used most.
fn guest_memory(pieces: &[(u64, u64, u64)]) -> Option<std::ops::Range<u64>> {
    let wanted = u64::from(MEMORY_MIB) << 20;
    let runs = (0..pieces.len()).filter_map(|first| {
        let (start, mut end, mut kib) = pieces[first];
        for &(next, after, more) in &pieces[first + 1..] {
            if end - start >= wanted || next != end {
                break;
            }
            (end, kib) = (after, kib + more);
        }
        (end - start == wanted).then_some((kib, start..end))
    });
    runs.max_by_key(|(kib, _)| *kib).map(|(_, range)| range)
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// A kernel that says one line on the serial port, a newline, and halts.
fn speaking_kernel() -> Vec<u8> {
    const AT: u32 = 0x10_0000;
    const HEADERS: u32 = 64 + 2 * 56;
    #[rustfmt::skip]
    const CODE: [u8; 12] = [
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'\n',            // mov al, '\n'
        0xee,                   // out dx, al
        0xfa,                   // cli
        0xf4,                   // hlt
        0xeb, 0xfd,             // jmp to it
        0x90,
    ];
    let note_at = HEADERS + 12;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut file, 16, &[2, 0, 62, 0, 1]);
    put(&mut file, 24, &(AT + HEADERS).to_le_bytes());
    put(&mut file, 32, &[64]);
    put(&mut file, 52, &[64, 0, 56, 0, 2]);
    let len = note_at + 20;
    for (kind, offset, address, len) in [(1_u32, 0, AT, len), (4, note_at, AT + note_at, 20)] {
        let flags = 7_u32;
        file.extend([kind.to_le_bytes(), flags.to_le_bytes()].concat());
        for word in [offset, address, address, len, len, 4] {
            file.extend(u64::from(word).to_le_bytes());
        }
    }
    file.extend(CODE);
    for word in [4_u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    let _ = file.write_all(b"Xen\0");
    file.extend((AT + HEADERS).to_le_bytes());
    file
}

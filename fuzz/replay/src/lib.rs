// SPDX-License-Identifier: Apache-2.0
//! Runs a fuzz target over its seeds and over mutations of them, on stable Rust and without a
//! fuzzer. It takes the place of the crate `libfuzzer_sys` when `cfg(fuzzing)` is not set.
//!
//! This is no fuzzer: it follows no coverage. It makes sure that seeds pass, and that a parser which
//! falls over the first thing out of order does not pass for long.
//!
//! With arguments, a target runs those files instead; that is how an input the fuzzer found is
//! looked at.

use std::fs;
use std::io;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mutations of each seed.
const MUTATIONS: u32 = 300;

/// When a target stops even if it has not run all mutations. Seeds always run.
const PATIENCE: Duration = Duration::from_secs(10);

/// Defines a target: what runs for an input, given as `&[u8]` or `&str`.
#[macro_export]
macro_rules! fuzz_target {
    (|$input:ident: $kind:ty| $body:expr) => {
        fn run_one(bytes: &[u8]) {
            if let Some($input) = <$kind as $crate::Input<'_>>::from_bytes(bytes) {
                $body;
            }
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn main() -> std::ffi::c_int {
            $crate::replay(env!("CARGO_BIN_NAME"), env!("CARGO_MANIFEST_DIR"), run_one)
        }
    };
}

/// What a target can take.
pub trait Input<'a>: Sized {
    /// The input that `bytes` are, if they are one.
    fn from_bytes(bytes: &'a [u8]) -> Option<Self>;
}

impl<'a> Input<'a> for &'a [u8] {
    fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        Some(bytes)
    }
}

impl<'a> Input<'a> for &'a str {
    fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        str::from_utf8(bytes).ok()
    }
}

/// Runs the files given as arguments, or the seeds of `target` and their mutations.
pub fn replay(target: &str, folder: &str, run: fn(&[u8])) -> std::ffi::c_int {
    let folder = Path::new(folder);
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let outcome = if files.is_empty() {
        replay_seeds(target, folder, run)
    } else {
        files.iter().try_for_each(|file| {
            run(&fs::read(file)?);
            Ok(())
        })
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {target}: {error}");
            1
        }
    }
}

fn replay_seeds(target: &str, folder: &Path, run: fn(&[u8])) -> io::Result<()> {
    let start = Instant::now();
    let mut seeds = Vec::new();
    for entry in fs::read_dir(folder.join("seeds").join(target))? {
        seeds.push(fs::read(entry?.path())?);
    }
    // The order of a folder is not that of the next run.
    seeds.sort();
    if seeds.is_empty() {
        return Err(io::Error::other("it has no seeds"));
    }
    let mut runs = 0_u32;
    for seed in [&Vec::new()].into_iter().chain(&seeds) {
        run_guarded(target, folder, seed, run)?;
        runs += 1;
    }
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..MUTATIONS {
        for seed in &seeds {
            if start.elapsed() > PATIENCE {
                println!("{target}: {runs} inputs, then out of time");
                return Ok(());
            }
            run_guarded(target, folder, &mutate(seed, &seeds, &mut random), run)?;
            runs += 1;
        }
    }
    println!("{target}: {runs} inputs");
    Ok(())
}

/// Runs one input; one that fails is kept beside those the fuzzer finds.
fn run_guarded(target: &str, folder: &Path, input: &[u8], run: fn(&[u8])) -> io::Result<()> {
    if catch_unwind(|| run(input)).is_ok() {
        return Ok(());
    }
    let folder = folder.join("artifacts").join(target);
    fs::create_dir_all(&folder)?;
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("replay-{hash:016x}"));
    fs::write(&path, input)?;
    Err(io::Error::other(format!("failed on {}", path.display())))
}

/// A few changes of the kinds that fuzzers make.
fn mutate(seed: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.byte()),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ if at < bytes.len() => {
                const ODD: [u8; 6] = [0x00, 0x01, 0x7f, 0x80, 0xa5, 0xff];
                bytes[at] = ODD[random.below(ODD.len())];
            }
            _ => {}
        }
    }
    bytes
}

/// The same numbers on every run, so that a failure can be seen again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

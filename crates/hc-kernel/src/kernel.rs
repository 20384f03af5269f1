// SPDX-License-Identifier: Apache-2.0
//! A kernel file and what lies beside it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::bzimage;
use crate::config::{self, Config, Setting};
use crate::elf::{self, Purpose, Segment};
use crate::error::Error;
use crate::modules::{Module, ModuleTree, Presence, read_bounded};
use crate::requirement::{MissingOption, Reason, Requirement, Requirements};
use crate::scan;

/// No more of a kernel is searched; a kernel with everything built in has about 60 MiB.
const SEARCH_MAX_LEN: u64 = 512 << 20;
/// A kernel's note segment has less than 1 KiB.
const NOTES_MAX_LEN: usize = 64 << 10;
/// The compressed configuration has about 60 KiB.
const EMBEDDED_MAX_LEN: usize = 1 << 20;
/// What the kernel says first, with its release behind it.
const BANNER: &[u8] = b"Linux version ";
/// How often the banner's words may occur without a release behind them.
const BANNER_MAX_TRIES: usize = 16;

/// A kernel file that was looked at.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    image: Image,
    release: Option<String>,
    config: Option<Config>,
    modules: Option<ModuleTree>,
}

/// What kind of file a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// An uncompressed ELF image, `vmlinux`.
    Elf {
        /// Where a hypervisor enters it by the PVH protocol, if the kernel offers that.
        pvh_entry: Option<u64>,
    },
    /// A self-extracting image, `vmlinuz`.
    BzImage,
}

/// The ways in which a kernel can find virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// Memory-mapped, named on the kernel command line.
    pub mmio_command_line: bool,
    /// Memory-mapped, described in ACPI tables.
    pub mmio_acpi: bool,
    /// On a PCI bus.
    pub pci: bool,
}

/// Whether a kernel meets a set of requirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It has everything.
    Fits,
    /// Its configuration is nowhere to be found.
    Unknown,
    /// It cannot run a pod.
    Lacks(Vec<MissingOption>),
}

impl Kernel {
    /// Looks at the kernel in the file `path`, its configuration and its modules.
    ///
    /// The modules are looked for in `lib/modules/RELEASE` beside the folder that the kernel is in,
    /// so that a package unpacked anywhere is used as a whole, and then in the host's own.
    ///
    /// This reads through the kernel, some milliseconds of work: keep the result.
    pub fn inspect(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path).map_err(Error::read(path))?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "a directory" } else { "not a regular file" };
            return Err(Error::NotAKernel { path: path.to_owned(), what });
        }
        let file = File::open(path).map_err(Error::read(path))?;
        let (image, release, embedded) = read_image(&file, path)?;
        let mut kernel =
            Self { path: path.to_owned(), image, release, config: embedded, modules: None };
        let neighbours = Neighbours::of(&kernel);
        if kernel.config.is_none() {
            kernel.config = neighbours.config()?;
        }
        kernel.modules = neighbours.modules()?;
        Ok(kernel)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of file it is.
    #[must_use]
    pub fn image(&self) -> Image {
        self.image
    }

    /// The release, as `uname -r` will say it, if the file tells.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// The options it was built with, if they could be found.
    #[must_use]
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// Its modules, if there are any.
    #[must_use]
    pub fn module_tree(&self) -> Option<&ModuleTree> {
        self.modules.as_ref()
    }

    /// The ways in which it can find virtio devices, or `None` when its configuration is unknown.
    #[must_use]
    pub fn transports(&self) -> Option<Transports> {
        let config = self.config.as_ref()?;
        let mmio = config.is_enabled("VIRTIO_MMIO");
        Some(Transports {
            mmio_command_line: config.is_built_in("VIRTIO_MMIO")
                && config.is_built_in("VIRTIO_MMIO_CMDLINE_DEVICES"),
            mmio_acpi: mmio && config.is_built_in("ACPI"),
            pci: config.is_built_in("PCI") && config.is_enabled("VIRTIO_PCI"),
        })
    }

    /// Whether it has all that `requirements` ask for.
    #[must_use]
    pub fn fitness(&self, requirements: &Requirements) -> Fitness {
        let mut missing = Vec::new();
        if requirements.needs_pvh() && self.image == (Image::Elf { pvh_entry: None }) {
            let purpose = "starting without firmware";
            missing.push(MissingOption { option: "PVH", purpose, reason: Reason::Unset });
        }
        if let Some(config) = &self.config {
            let options = requirements.list().iter();
            missing.extend(options.filter_map(|required| self.missing(config, required)));
        }
        match (missing.is_empty(), &self.config) {
            (false, _) => Fitness::Lacks(missing),
            (true, Some(_)) => Fitness::Fits,
            (true, None) => Fitness::Unknown,
        }
    }

    /// Fails with the names of the missing options when the kernel is known not to be fit.
    ///
    /// A kernel whose configuration is unknown passes; [`Kernel::fitness`] tells it apart.
    pub fn require(&self, requirements: &Requirements) -> Result<(), Error> {
        match self.fitness(requirements) {
            Fitness::Fits | Fitness::Unknown => Ok(()),
            Fitness::Lacks(missing) => Err(Error::Lacks { path: self.path.clone(), missing }),
        }
    }

    /// The modules to load for `requirements`, in an order in which they load. Empty for a kernel
    /// that has everything built in.
    pub fn modules(&self, requirements: &Requirements) -> Result<Vec<Module>, Error> {
        let Some(tree) = &self.modules else {
            return Ok(Vec::new());
        };
        let required = requirements.list().iter().filter(|required| match &self.config {
            Some(config) => config.get(required.option) == Some(&Setting::Module),
            None => true,
        });
        let required = required.filter_map(|required| required.module);
        let optional = requirements.optional_modules().iter().copied();
        let is_file = |name: &&str| tree.presence(name) == Presence::File;
        // Optional ones first: the others' checksums come from them.
        let wanted: Vec<&str> = optional.chain(required).filter(is_file).collect();
        tree.resolve(&wanted)
    }

    fn missing(&self, config: &Config, required: &Requirement) -> Option<MissingOption> {
        let reason = match (config.get(required.option), required.module) {
            (Some(Setting::BuiltIn), _) => return None,
            (Some(Setting::Module), None) => Reason::NotBuiltIn,
            (Some(Setting::Module), Some(module)) => {
                let tree = self.modules.as_ref();
                match tree.map_or(Presence::Absent, |tree| tree.presence(module)) {
                    Presence::BuiltIn | Presence::File => return None,
                    Presence::Absent => Reason::ModuleNotFound,
                }
            }
            (Some(Setting::Value(_)) | None, _) => Reason::Unset,
        };
        Some(MissingOption { option: required.option, purpose: required.purpose, reason })
    }
}

/// What the file itself says: its kind, its release, its configuration.
type FromImage = (Image, Option<String>, Option<Config>);

fn read_image(file: &File, path: &Path) -> Result<FromImage, Error> {
    let mut head = vec![0; bzimage::HEAD_LEN];
    let len = scan::read_up_to(file, 0, u64::MAX, &mut head).map_err(Error::read(path))?;
    head.truncate(len);
    let not_a_kernel = |what| Error::NotAKernel { path: path.to_owned(), what };
    if let Some(header) = bzimage::parse(&head) {
        if !header.is_64_bit {
            return Err(not_a_kernel("a kernel for 32-bit machines"));
        }
        return Ok((Image::BzImage, header.release, None));
    }
    let header = elf::Header::parse(&head).filter(elf::Header::is_x86_64_program);
    let header = header.ok_or_else(|| not_a_kernel(describe(&head)))?;
    let elf = ElfFile { file, path };
    let segments = elf.segments(header.segments())?;
    let pvh_entry = elf.pvh_entry(&segments)?;
    let release = elf.release(&segments)?;
    let config = elf.config(&segments)?;
    if pvh_entry.is_none() && release.is_none() {
        return Err(not_a_kernel("an ELF program"));
    }
    Ok((Image::Elf { pvh_entry }, release, config))
}

/// Names what a file that is no kernel seems to be.
fn describe(head: &[u8]) -> &'static str {
    const NAMES: &[(&[u8], &str)] = &[
        (b"\x7fELF", "an ELF file that is no x86-64 kernel"),
        (b"\x1f\x8b", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"BZh", "compressed with bzip2"),
        (b"MZ", "an EFI or Windows program"),
        (b"070701", "a cpio archive, perhaps an initramfs"),
        (b"#!", "a script"),
        (b"!<arch>\n", "a Debian package or a library"),
        (b"QFI\xfb", "a qcow2 disk image"),
    ];
    if head.is_empty() {
        return "empty";
    }
    if head.get(0x38..0x3c) == Some(b"ARM\x64") {
        return "a kernel for ARM machines";
    }
    NAMES
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map_or("of an unknown kind", |(_, name)| name)
}

/// An ELF kernel whose header was read.
pub(crate) struct ElfFile<'a> {
    pub(crate) file: &'a File,
    pub(crate) path: &'a Path,
}

impl ElfFile<'_> {
    pub(crate) fn segments(&self, table: elf::Table) -> Result<Vec<Segment>, Error> {
        let bytes = self.read(table.offset, table.len)?;
        Ok(elf::segments(&bytes).collect())
    }

    pub(crate) fn pvh_entry(&self, segments: &[Segment]) -> Result<Option<u64>, Error> {
        for segment in segments.iter().filter(|segment| segment.purpose == Purpose::Note) {
            let len = usize::try_from(segment.len).unwrap_or(usize::MAX).min(NOTES_MAX_LEN);
            if let Some(entry) = elf::pvh_entry(&self.read(segment.offset, len)?) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn release(&self, segments: &[Segment]) -> Result<Option<String>, Error> {
        for mut range in loaded(segments) {
            for _ in 0..BANNER_MAX_TRIES {
                let Some(at) = self.find(range.clone(), BANNER)? else {
                    break;
                };
                range.start = at + BANNER.len() as u64;
                if let Some(release) = bzimage::release(&self.read(range.start, 65)?) {
                    return Ok(Some(release));
                }
            }
        }
        Ok(None)
    }

    fn config(&self, segments: &[Segment]) -> Result<Option<Config>, Error> {
        for range in loaded(segments) {
            if let Some(at) = self.find(range, config::EMBEDDED_MARK)? {
                let start = at + config::EMBEDDED_MARK_LEN;
                let packed = self.read(start, EMBEDDED_MAX_LEN)?;
                let damaged = || {
                    let what = "the embedded copy cannot be unpacked";
                    Error::DamagedConfig { path: self.path.to_owned(), what }
                };
                return Config::from_gzip(&packed[..]).map(Some).ok_or_else(damaged);
            }
        }
        Ok(None)
    }

    fn find(&self, range: Range<u64>, pattern: &[u8]) -> Result<Option<u64>, Error> {
        scan::find(self.file, range, pattern).map_err(Error::read(self.path))
    }

    /// Reads `len` bytes from `at`, or what there is of them.
    pub(crate) fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        let read = scan::read_up_to(self.file, at, u64::MAX, &mut bytes);
        bytes.truncate(read.map_err(Error::read(self.path))?);
        Ok(bytes)
    }
}

/// The parts of the file that go into memory, together no more than the limit.
fn loaded(segments: &[Segment]) -> impl Iterator<Item = Range<u64>> {
    let mut left = SEARCH_MAX_LEN;
    let loaded = segments.iter().filter(|segment| segment.purpose == Purpose::Load);
    loaded.map(move |segment| {
        let len = segment.len.min(left);
        left -= len;
        segment.offset..segment.offset.saturating_add(len)
    })
}

/// The places where distributions keep what belongs to a kernel.
struct Neighbours {
    /// The folder that the kernel is in, symbolic links resolved: `/vmlinuz` is often one.
    dir: PathBuf,
    release: Option<String>,
}

impl Neighbours {
    fn of(kernel: &Kernel) -> Self {
        let real = fs::canonicalize(&kernel.path).unwrap_or_else(|_| kernel.path.clone());
        let dir = real.parent().unwrap_or(Path::new("/")).to_owned();
        Self { dir, release: kernel.release.clone() }
    }

    fn config(&self) -> Result<Option<Config>, Error> {
        let Some(release) = &self.release else {
            return Ok(None);
        };
        let name = format!("config-{release}");
        let mut candidates = vec![self.dir.join(&name), Path::new("/boot").join(&name)];
        if self.is_module_dir(release) {
            candidates.insert(0, self.dir.join("config"));
        }
        for path in candidates {
            match read_bounded(&path, config::TEXT_MAX_LEN) {
                Ok(bytes) => return Ok(Some(Config::parse(&String::from_utf8_lossy(&bytes)))),
                Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn modules(&self) -> Result<Option<ModuleTree>, Error> {
        let Some(release) = &self.release else {
            return Ok(None);
        };
        let root = self.dir.parent().unwrap_or(Path::new("/"));
        let mut candidates: Vec<PathBuf> = [root, Path::new("/")]
            .into_iter()
            .flat_map(|root| [root.join("lib/modules"), root.join("usr/lib/modules")])
            .map(|modules| modules.join(release))
            .collect();
        if self.is_module_dir(release) {
            candidates.insert(0, self.dir.clone());
        }
        let is_tree = |dir: &&PathBuf| {
            ["modules.dep", "modules.order"].iter().any(|index| dir.join(index).is_file())
        };
        candidates.iter().find(is_tree).map(|dir| ModuleTree::open(dir)).transpose()
    }

    /// Some distributions keep the kernel among its modules: `lib/modules/RELEASE/vmlinuz`.
    fn is_module_dir(&self, release: &str) -> bool {
        self.dir.file_name().is_some_and(|name| name == release)
    }
}

#[cfg(test)]
mod tests;

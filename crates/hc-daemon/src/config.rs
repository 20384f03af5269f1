// SPDX-License-Identifier: Apache-2.0
//! The daemon's configuration file: TOML, every key optional, unknown keys refused.
//!
//! ```toml
//! kernel = "/boot/vmlinux"          # instead of the one that came with the program
//! driver = "qemu-tcg"               # instead of what the probe finds
//! memory = "1g"                     # of a pod that does not say
//! cpus = 2
//! boot-timeout = 60                 # seconds that a guest has to answer
//! templates = "auto"                # or "off": every pod boots its kernel
//! pool = 2                          # VMs that wait for the next pods
//! insecure-registries = ["registry.example:5000"]
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::host::Wanted;

/// Memory of a VM whose container names no limit: what a small service or build step wants, and
/// host memory is only used once touched.
const DEFAULT_MEMORY_MIB: u32 = 512;
/// Seconds that a guest has from power-on to its first word. A boot takes one under emulation on an
/// idle machine; a machine that starts dozens of pods at once is not idle.
const DEFAULT_BOOT_TIMEOUT_SECONDS: u32 = 60;
/// The least a VM can boot with and still run something.
pub(crate) const MIN_MEMORY_MIB: u32 = 64;

/// The most VMs that may wait: more would be a slip.
const MAX_POOL: usize = 256;

/// Whether pods go on from templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TemplatesMode {
    /// Where there is one that fits; and one is made where there is not.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// The configuration as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// The kernel of pods that name none.
    pub(crate) kernel: Option<PathBuf>,
    /// The driver of pods that name none.
    pub(crate) driver: Option<Wanted>,
    /// Memory of pods that name none, such as `512m`.
    memory: Option<String>,
    /// Whole CPUs of pods that name none.
    cpus: Option<u32>,
    /// Seconds that a guest has to answer.
    boot_timeout: Option<u32>,
    /// Whether pods go on from templates.
    pub(crate) templates: TemplatesMode,
    /// How many VMs wait for the next pods.
    pub(crate) pool: usize,
    /// Registries spoken to without TLS.
    pub(crate) insecure_registries: Vec<String>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot understand configuration {}", path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("configuration {}: memory {text:?} is no size such as 512m or 2g, of at least 64m", path.display())]
    Memory { path: PathBuf, text: String },
    #[error("configuration {}: pool = {size} is more than {MAX_POOL}", path.display())]
    Pool { path: PathBuf, size: usize },
    #[error("configuration {}: a pool needs templates: set templates to \"auto\", or pool to 0", path.display())]
    PoolWithoutTemplates { path: PathBuf },
}

impl Config {
    /// Reads the file; one that does not exist is empty.
    pub(crate) fn read(path: &Path) -> Result<Config, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: source.into(),
        })?;
        if let Some(memory) = &config.memory
            && parse_mib(memory).is_none()
        {
            return Err(ConfigError::Memory { path: path.to_owned(), text: memory.clone() });
        }
        if config.pool > MAX_POOL {
            return Err(ConfigError::Pool { path: path.to_owned(), size: config.pool });
        }
        if config.pool > 0 && config.templates == TemplatesMode::Off {
            return Err(ConfigError::PoolWithoutTemplates { path: path.to_owned() });
        }
        Ok(config)
    }

    /// The memory of a VM whose container names no limit.
    pub(crate) fn memory_mib(&self) -> u32 {
        self.memory.as_deref().and_then(parse_mib).unwrap_or(DEFAULT_MEMORY_MIB)
    }

    /// Seconds that a guest has from power-on to its first word.
    pub(crate) fn boot_timeout_seconds(&self) -> u32 {
        self.boot_timeout.unwrap_or(DEFAULT_BOOT_TIMEOUT_SECONDS).max(1)
    }

    /// The CPUs of a VM whose container names no limit.
    pub(crate) fn vcpus(&self) -> u32 {
        self.cpus.unwrap_or(1).max(1)
    }
}

/// Reads `512m`, `2g`, `1024k` or bytes as whole MiB; `None` below the least.
fn parse_mib(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    u32::try_from(bytes >> 20).ok().filter(|mib| *mib >= MIN_MEMORY_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_has_the_defaults_and_sizes_are_read() {
        let path = Path::new("c.toml");
        let config = Config::parse(path, "").unwrap();
        assert_eq!((config.memory_mib(), config.vcpus()), (512, 1));
        assert_eq!(config.boot_timeout_seconds(), 60);
        assert_eq!(config.driver, None);
        let text = "memory = \"2g\"\ncpus = 3\nboot-timeout = 5\ndriver = \"qemu\"";
        let config = Config::parse(path, text).unwrap();
        assert_eq!(config.driver, Some(Wanted::Qemu));
        assert_eq!((config.memory_mib(), config.vcpus()), (2048, 3));
        assert_eq!(config.boot_timeout_seconds(), 5);
    }

    #[test]
    fn mistakes_are_refused_with_the_file_and_the_word() {
        let path = Path::new("c.toml");
        let error = Config::parse(path, "memory = \"2 lots\"").unwrap_err().to_string();
        assert!(error.contains("c.toml") && error.contains("2 lots"), "{error}");
        let error = Config::parse(path, "kernal = \"x\"").unwrap_err();
        assert!(hc_pod::chain(&error).contains("kernal"), "{error:?}");
        assert!(Config::parse(path, "memory = \"1m\"").is_err());
        let error = Config::parse(path, "pool = 9999").unwrap_err().to_string();
        assert!(error.contains("9999"), "{error}");
        let error = Config::parse(path, "pool = 1\ntemplates = \"off\"").unwrap_err().to_string();
        assert!(error.contains("needs templates"), "{error}");
        assert!(Config::parse(path, "templates = \"maybe\"").is_err());
        let error = Config::parse(path, "driver = \"bochs\"").unwrap_err();
        assert!(hc_pod::chain(&error).contains("use one of"), "{error:?}");
    }
}

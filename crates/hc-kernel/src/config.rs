// SPDX-License-Identifier: Apache-2.0
//! The options a kernel was built with.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;

/// Starts the copy of the configuration in a kernel built with `CONFIG_IKCONFIG`; what follows is
/// gzip, whose first bytes keep the mark apart from the same letters elsewhere.
pub(crate) const EMBEDDED_MARK: &[u8] = b"IKCFG_ST\x1f\x8b\x08";
/// How much of the mark stands before the gzip data.
pub(crate) const EMBEDDED_MARK_LEN: u64 = 8;
/// The largest configuration taken; a distribution's has about 280 KiB.
pub(crate) const TEXT_MAX_LEN: u64 = 4 << 20;

/// How one option was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Part of the kernel, `=y`.
    BuiltIn,
    /// To be loaded when needed, `=m`.
    Module,
    /// A number or a text, as written in the file.
    Value(String),
}

/// A kernel's configuration. An option that is not in it is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    settings: HashMap<String, Setting>,
}

impl Config {
    /// Reads the text of a `.config` file. Lines that set nothing are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let settings = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            let setting = match value {
                "y" => Setting::BuiltIn,
                "m" => Setting::Module,
                other => Setting::Value(other.trim_matches('"').to_owned()),
            };
            Some((name.to_owned(), setting))
        });
        Self { settings: settings.collect() }
    }

    /// Unpacks the copy embedded in a kernel; `None` when it is damaged or larger than any real one.
    pub(crate) fn from_gzip(packed: impl Read) -> Option<Self> {
        let mut text = Vec::new();
        GzDecoder::new(packed).take(TEXT_MAX_LEN + 1).read_to_end(&mut text).ok()?;
        if text.len() as u64 > TEXT_MAX_LEN {
            return None;
        }
        Some(Self::parse(&String::from_utf8_lossy(&text)))
    }

    /// How the option `name` is set; the name has no `CONFIG_`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name)
    }

    /// Whether the option `name` is part of the kernel.
    #[must_use]
    pub fn is_built_in(&self, name: &str) -> bool {
        self.get(name) == Some(&Setting::BuiltIn)
    }

    /// Whether the option `name` is there, built in or as a module.
    #[must_use]
    pub fn is_enabled(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Setting::BuiltIn | Setting::Module))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn settings_are_told_apart() {
        let config = Config::parse(
            "# comment\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"x y\"\nCONFIG_E=64\n",
        );
        assert_eq!(config.get("A"), Some(&Setting::BuiltIn));
        assert_eq!(config.get("B"), Some(&Setting::Module));
        assert_eq!(config.get("C"), None);
        assert_eq!(config.get("D"), Some(&Setting::Value("x y".into())));
        assert_eq!(config.get("E"), Some(&Setting::Value("64".into())));
        assert!(config.is_enabled("B") && !config.is_built_in("B") && !config.is_enabled("E"));
    }

    #[test]
    fn embedded_copy_is_unpacked_past_what_follows_it() {
        let packed =
            [gzip(b"CONFIG_A=y\n"), b"IKCFG_ED and the rest of the kernel".to_vec()].concat();
        assert!(Config::from_gzip(&packed[..]).unwrap().is_built_in("A"));
    }

    #[test]
    fn embedded_copy_that_unpacks_without_end_is_refused() {
        let bomb = gzip("\n".repeat(8 << 20).as_bytes());
        assert!(bomb.len() < 1 << 20);
        assert_eq!(Config::from_gzip(&bomb[..]), None);
    }

    #[test]
    fn embedded_copy_cut_short_is_refused() {
        let packed = gzip(b"CONFIG_A=y\nCONFIG_B=y\n");
        for len in 0..packed.len() {
            assert_eq!(Config::from_gzip(&packed[..len]), None, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Config::from_gzip(&bytes[..]);
            let _ = Config::from_gzip(&[b"\x1f\x8b\x08", &bytes[..]].concat()[..]);
            let _ = Config::parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn embedded_text_comes_back(names in proptest::collection::vec("[A-Z0-9_]{1,12}", 0..20)) {
            let lines: Vec<_> = names.iter().map(|name| format!("CONFIG_{name}=y\n")).collect();
            let text = lines.concat();
            let config = Config::from_gzip(&gzip(text.as_bytes())[..]).unwrap();
            prop_assert_eq!(&config, &Config::parse(&text));
            prop_assert!(names.iter().all(|name| config.is_built_in(name)));
        }
    }
}

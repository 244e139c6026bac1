//! The settings file of alpm-dkms, `alpm-dkms.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::size::Size;
use super::{InitramfsSettings, NotifySettings, PreflightSettings, recovery};

/// The content of `alpm-dkms.toml`. Every key is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnSettings {
    pub(super) build: BuildSection,
    pub(super) conf: ConfSection,
    pub(super) cache: CacheSection,
    pub(super) initramfs: ImagesSection,
    pub(super) notify: NotifySection,
    pub(super) preflight: PreflightSection,
    pub(super) signing: SigningSection,
    /// The `[module.NAME]` sections, by name.
    pub(super) module: BTreeMap<String, ModuleSection>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The `[build]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BuildSection {
    /// The maximum number of parallel jobs; 0 means one per processor.
    pub(super) jobs: Option<usize>,
    /// The timeout for building one module, in seconds; 0 disables the timeout.
    pub(super) timeout: Option<u64>,
    /// The memory that one job is expected to use. If it is 0, memory does not limit the number of
    /// jobs.
    pub(super) memory_per_job: Option<Size>,
    /// The compiler launcher and its arguments, separated by white space.
    pub(super) launcher: Option<String>,
    /// Whether the modules of a run share compiler results.
    pub(super) compile_once: Option<bool>,
    /// The output file for the HTML timeline of a run.
    pub(super) timings: Option<PathBuf>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The `[cache]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CacheSection {
    /// The maximum size of the build cache; 0 disables the cache.
    pub(super) size: Option<Size>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The `[conf]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConfSection {
    /// The timeout for evaluating one conf, in seconds; 0 disables the timeout.
    pub(super) timeout: Option<u64>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The `[initramfs]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImagesSection {
    #[serde(flatten)]
    pub(super) known: InitramfsSettings,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The `[notify]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NotifySection {
    #[serde(flatten)]
    pub(super) known: NotifySettings,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The `[preflight]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PreflightSection {
    #[serde(flatten)]
    pub(super) known: PreflightSettings,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The `[signing]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SigningSection {
    /// The file whose first line is the PIN of the token or the passphrase of the signing key.
    pub(super) pin_file: Option<PathBuf>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// A `[module.NAME]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModuleSection {
    /// The module to use if the kernel also has the module, in the same or a newer version.
    pub(super) prefer: Option<Preference>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// The preferred module if both dkms and the kernel have one with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Preference {
    /// The module that dkms builds.
    Dkms,
    /// The module of the kernel, if it is the same or newer.
    Kernel,
}

impl OwnSettings {
    /// Reads `file`. If the file does not exist, returns the defaults. If it exists but cannot be
    /// read, returns the defaults and adds a message to `problems`. Otherwise, adds a message for
    /// the first syntax error, for each invalid value and for each unknown key. Keeps every setting
    /// that could be read.
    pub(super) fn read(file: &Path, problems: &mut Vec<String>) -> Self {
        let text = match fs::read(file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                problems.push(format!("cannot read {}: {error}; using defaults", file.display()));
                return Self::default();
            }
        };
        let mut found = Vec::new();
        let own: Self = recovery::read(&text, &mut found);
        found.extend(own.unknown_keys().map(|key| format!("unknown key: {key}")));
        problems.extend(found.iter().map(|problem| format!("{}: {problem}", file.display())));
        own
    }

    /// Returns the unknown keys, each as `section.key`.
    fn unknown_keys(&self) -> impl Iterator<Item = String> {
        let sections = [
            ("", &self.unknown),
            ("build.", &self.build.unknown),
            ("cache.", &self.cache.unknown),
            ("conf.", &self.conf.unknown),
            ("initramfs.", &self.initramfs.unknown),
            ("notify.", &self.notify.unknown),
            ("preflight.", &self.preflight.unknown),
            ("signing.", &self.signing.unknown),
        ];
        let sections = sections.map(|(section, unknown)| (section.to_owned(), unknown));
        let modules = self.module.iter();
        let modules = modules.map(|(name, it)| (format!("module.{name}."), &it.unknown));
        sections
            .into_iter()
            .chain(modules)
            .flat_map(|(section, unknown)| unknown.keys().map(move |key| format!("{section}{key}")))
    }
}

//! Our own settings file, `alpm-dkms.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::InitramfsSettings;
use super::size::Size;

/// What the file says; everything is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnSettings {
    pub(super) build: BuildSection,
    pub(super) conf: ConfSection,
    pub(super) cache: CacheSection,
    pub(super) initramfs: ImagesSection,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[build]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BuildSection {
    /// 0 for one for each processor.
    pub(super) jobs: Option<usize>,
    /// In seconds, 0 for none.
    pub(super) timeout: Option<u64>,
    /// 0 for no bound.
    pub(super) memory_per_job: Option<Size>,
    /// What is put before the compiler, split at blanks.
    pub(super) launcher: Option<String>,
    /// Whether the modules of a run share compiler results.
    pub(super) compile_once: Option<bool>,
    /// A file.
    pub(super) timings: Option<PathBuf>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[cache]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CacheSection {
    /// 0 for no cache.
    pub(super) size: Option<Size>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[conf]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConfSection {
    /// In seconds, 0 for none.
    pub(super) timeout: Option<u64>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[initramfs]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImagesSection {
    #[serde(flatten)]
    pub(super) known: InitramfsSettings,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

impl OwnSettings {
    /// Reads the file. One that is broken is reported and otherwise as if it were not there; a key
    /// that we do not know is only reported, since a newer version may have written it.
    pub(super) fn read(file: &Path, problems: &mut Vec<String>) -> Self {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                problems.push(format!("{} cannot be read: {error}", file.display()));
                return Self::default();
            }
        };
        let own: Self = match toml::from_str(&text) {
            Ok(own) => own,
            Err(error) => {
                let error = error.to_string();
                problems.push(format!("{} is not used: {}", file.display(), error.trim_end()));
                return Self::default();
            }
        };
        let sections = [
            ("", &own.unknown),
            ("build.", &own.build.unknown),
            ("cache.", &own.cache.unknown),
            ("conf.", &own.conf.unknown),
            ("initramfs.", &own.initramfs.unknown),
        ];
        for (section, unknown) in sections {
            for key in unknown.keys() {
                problems.push(format!("{} has an unknown key: {section}{key}", file.display()));
            }
        }
        own
    }
}

//! The settings for the preflight in `alpm-dkms.toml`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::seconds;

/// The default timeout of a preflight, in seconds.
const TIMEOUT: u64 = 30 * 60;

/// The `[preflight]` section of `alpm-dkms.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PreflightSettings {
    /// The treatment of modules that would stop working.
    pub mode: PreflightMode,
    timeout: u64,
    /// The names of modules that are critical even if this machine does not seem to need them. As
    /// in the kernel, `_` replaces each `-`.
    #[serde(deserialize_with = "module_names")]
    pub critical: Vec<String>,
}

impl Default for PreflightSettings {
    fn default() -> Self {
        Self { mode: PreflightMode::Critical, timeout: TIMEOUT, critical: Vec::new() }
    }
}

impl PreflightSettings {
    /// Returns the timeout of a preflight.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout)
    }
}

/// The treatment of a transaction that would break modules that work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreflightMode {
    /// Do not run trial builds before a transaction.
    Off,
    /// Warn about each module that would break.
    Warn,
    /// Abort the transaction if it would break a critical module. Warn about each other module that
    /// would break.
    Critical,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a module name or a list of module names")]
enum Names {
    One(String),
    Several(Vec<String>),
}

fn module_names<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    let names = match Names::deserialize(value)? {
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    };
    // Drops a version, as in `zfs/2.4`: the transaction may install another version.
    let name = |name: String| name.split('/').next().unwrap_or_default().replace('-', "_");
    Ok(names.into_iter().map(name).collect())
}

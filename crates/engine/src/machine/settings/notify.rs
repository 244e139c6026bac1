//! The settings for notices in `alpm-dkms.toml`.

use serde::Deserialize;

/// The `[notify]` section of `alpm-dkms.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NotifySettings {
    /// Whether the journal and a notice at login report faults that concern the next boot or the
    /// running kernel.
    pub enable: bool,
    /// The shell command that gets the text of each new notice on standard input. If empty, no
    /// command is run.
    pub command: String,
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self { enable: true, command: String::new() }
    }
}

//! The settings for notices in `alpm-dkms.toml`.

use serde::Deserialize;

/// The `[notify]` section of `alpm-dkms.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NotifySettings {
    /// Whether to report faults that concern the next boot or the running kernel in the journal and at
    /// login.
    pub enable: bool,
    /// The shell command that gets the text of each new notice on standard input. Empty for none.
    pub command: String,
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self { enable: true, command: String::new() }
    }
}

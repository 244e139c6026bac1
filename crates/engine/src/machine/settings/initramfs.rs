//! Our settings for initramfs images.

use serde::Deserialize;

/// `[initramfs]` of `alpm-dkms.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct InitramfsSettings {
    /// The program that makes images, `mkinitcpio`, `dracut` or `booster`; found out if empty.
    pub generator: String,
    /// The command that regenerates one image, in place of the generator's own if not empty: `%k`
    /// is the kernel's release, `%i` the image, `%p` the kernel's package.
    pub command: String,
    /// Whether commands regenerate the images that they made stale, or only list them.
    pub mode: InitramfsMode,
    /// The command that signs unified kernel images again.
    pub sign: String,
    /// Whether an override of mkinitcpio's hook keeps it from regenerating all images for any
    /// `dkms.conf`.
    pub precise: bool,
}

impl Default for InitramfsSettings {
    fn default() -> Self {
        Self {
            generator: String::new(),
            command: String::new(),
            mode: InitramfsMode::Tell,
            sign: "sbctl sign-all -g".into(),
            precise: false,
        }
    }
}

/// What a command does about images that it made stale. Hooks always regenerate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitramfsMode {
    /// Regenerates them.
    Auto,
    /// Lists them. Only autoinstall, which finishes pending work, regenerates.
    Tell,
}

//! The settings for initramfs images in `alpm-dkms.toml`.

use serde::Deserialize;

/// The `[initramfs]` section of `alpm-dkms.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct InitramfsSettings {
    /// The generator of images: `mkinitcpio`, `dracut` or `booster`, or `none` to leave images
    /// alone. If empty, the generator is detected.
    ///
    /// If the hook of a generator is masked, its images are left alone, unless this setting names
    /// the generator.
    pub generator: String,
    /// The command that regenerates one image. If empty, the generator's own command is used.
    ///
    /// `%k` is replaced with the kernel release, `%i` with the path of the image, and `%p` with the
    /// kernel's package.
    pub command: String,
    /// The treatment of outdated images by dkms commands.
    pub mode: InitramfsMode,
    /// The command that signs regenerated unified kernel images (UKIs).
    pub sign: String,
    /// Whether to override mkinitcpio's hook, which would regenerate all images whenever a
    /// `dkms.conf` changes.
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

/// The treatment of outdated images by dkms commands. An image is outdated if it does not contain
/// the modules that are now installed.
///
/// Hooks always regenerate outdated images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitramfsMode {
    /// Regenerate the outdated images.
    Auto,
    /// List the outdated images. Only `dkms autoinstall`, which finishes pending work, regenerates
    /// them.
    Tell,
}

//! Decides whether a module takes precedence over the same or a newer module of the kernel.

use std::collections::BTreeSet;
use std::fs;

use super::Machine;
use crate::names::ModuleName;

/// The directory of the files in which packages list modules that are always installed.
const FORCED: &str = "usr/share/dkms/modules_to_force_install";

impl Machine {
    /// Returns true if the module is always installed: because of `--force`, the settings or
    /// a file in [`FORCED`].
    pub(crate) fn always_installs(&self, name: &ModuleName) -> bool {
        self.options.force_install
            || self.settings.prefers_dkms(name)
            || self.forced_words().contains(name.as_str())
    }

    /// Returns true if the module is installed regardless of its version: because of
    /// `--force-version-override` or a file in [`FORCED`].
    pub(crate) fn ignores_version_of(&self, name: &ModuleName) -> bool {
        self.options.force_version
            || self.forced_words().contains(&format!("{name}_version-override"))
    }

    /// Returns all words of the files in [`FORCED`].
    fn forced_words(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.trees.root.join(FORCED)).into_iter().flatten().flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        texts.flat_map(words).collect()
    }
}

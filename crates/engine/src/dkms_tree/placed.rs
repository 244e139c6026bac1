//! An object in a kernel's directory, and the comparison of the object with the file at its path.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::dkms_tree::BuiltObject;
use crate::machine::{Machine, Trees};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::objects::{Compression, Payload};
use crate::os::digest::Digest;
use crate::os::symlinks;

/// An object in a kernel's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The path relative to the kernel's directory, such as `updates/dkms/v4l2loopback.ko.zst`.
    pub path: String,
    /// The module that contains the object.
    pub module: ModuleId,
    pub(crate) arch: Arch,
    /// The dkms tree of the module's build; `None` for the default tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tree: Option<PathBuf>,
    /// The digest of the object in the module's build.
    pub digest: Digest,
    /// The kernel release in the object's vermagic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) built_for: Option<String>,
    /// The digest of the certificate with which the object is signed; `None` if it is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signer: Option<Digest>,
    /// The stat signature of the file; `None` if the object has not been placed yet or if its file
    /// is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stat: Option<String>,
    pub(crate) condition: Condition,
}

/// The result of comparing an object with the file at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Condition {
    /// The object has not been placed yet, so any file can be at its path.
    Intended,
    /// The file is the object.
    Intact,
    /// The file differs from the object only in its signature or compression.
    Resigned,
    /// The file is another kernel object.
    Other,
    /// The file is not a complete kernel object.
    Damaged,
    /// There is no file.
    Missing,
}

impl Condition {
    /// Returns true if the file is not what was placed, so that it may belong to a package.
    pub(crate) fn is_changed(self) -> bool {
        matches!(self, Self::Resigned | Self::Other | Self::Damaged)
    }

    /// Returns true if the object has to be placed again.
    pub(crate) fn needs_repair(self) -> bool {
        matches!(self, Self::Intended | Self::Damaged | Self::Missing)
    }
}

impl Placed {
    /// Returns the entry for `object`, which has not been placed yet.
    pub(crate) fn intended(
        module: &ModuleId,
        arch: &Arch,
        object: &BuiltObject,
        signer: Option<Digest>,
    ) -> Self {
        Self {
            path: object.path(),
            module: module.clone(),
            arch: arch.clone(),
            tree: None,
            digest: object.digest,
            built_for: object.built_for.clone(),
            signer,
            stat: None,
            condition: Condition::Intended,
        }
    }

    /// Returns the change time that the file had when it was last compared with the object, or
    /// `None` if it has not been placed or was missing. This is the time of placing unless the file
    /// has changed since.
    #[must_use]
    pub fn placed_at(&self) -> Option<SystemTime> {
        let changed = self.stat.as_ref()?.split(' ').nth(2)?;
        let seconds = changed.split('.').next()?.parse().ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// Compares the object with its file. If the file is missing, looks for a file with another
    /// compression.
    pub(crate) fn examine(&mut self, machine: &Machine, kernel: &KernelRelease, dir: &Path) {
        let stat = stat_of(&machine.trees, &dir.join(&self.path));
        if stat.is_some() && stat == self.stat {
            return;
        }
        let found = match &stat {
            Some(_) => self.compare(machine, kernel, &dir.join(&self.path)),
            None => Condition::Missing,
        };
        let is_placed = matches!(found, Condition::Intact | Condition::Resigned);
        if self.condition == Condition::Intended && !is_placed {
            return;
        }
        (self.condition, self.stat) = (found, stat);
        if found != Condition::Missing {
            return;
        }
        let is_it =
            |path: &String| self.compare(machine, kernel, &dir.join(path)) == Condition::Resigned;
        let other = other_compressions(&self.path).into_iter().find(is_it);
        if let Some(other) = other {
            self.stat = stat_of(&machine.trees, &dir.join(&other));
            self.condition = Condition::Resigned;
            self.path = other;
        }
    }

    fn compare(&self, machine: &Machine, kernel: &KernelRelease, file: &Path) -> Condition {
        let Ok(file) = symlinks::resolve(&machine.trees.root, file) else {
            return Condition::Missing;
        };
        if Digest::of_file(&file).is_ok_and(|digest| digest == self.digest) {
            return Condition::Intact;
        }
        let read = |file: &Path| Payload::read(&machine.tools, &machine.env, file);
        match read(&file) {
            None => Condition::Damaged,
            Some(payload) if self.payload(machine, kernel) == Some(payload.digest) => {
                Condition::Resigned
            }
            Some(_) => Condition::Other,
        }
    }

    /// Returns the digest of the object in the module's build, computed without compression and
    /// signature. Returns `None` if the build no longer contains the object.
    fn payload(&self, machine: &Machine, kernel: &KernelRelease) -> Option<Digest> {
        let module = machine.trees.built(&self.module, kernel, &self.arch).join("module");
        let path = Path::new(&self.path);
        let names = other_compressions(&self.path);
        let names = [path].into_iter().chain(names.iter().map(Path::new));
        let stored = names.map(|name| module.join(name.file_name().unwrap_or_default()));
        let stored = stored.into_iter().find(|stored| stored.is_file())?;
        Payload::read(&machine.tools, &machine.env, &stored).map(|payload| payload.digest)
    }
}

/// Returns the stat signature of the file that `path` leads to, or `None` if there is no file.
///
/// The signature omits the device number, because btrfs assigns new ones to its subvolumes at each
/// mount.
pub(super) fn stat_of(trees: &Trees, path: &Path) -> Option<String> {
    let meta = fs::symlink_metadata(path).ok()?;
    let meta: Metadata = match meta.is_symlink() {
        true => fs::metadata(symlinks::resolve(&trees.root, path).ok()?).ok()?,
        false => meta,
    };
    meta.is_file().then(|| {
        let (size, inode) = (meta.size(), meta.ino());
        let (mtime, mtime_nsec) = (meta.mtime(), meta.mtime_nsec());
        let (ctime, ctime_nsec) = (meta.ctime(), meta.ctime_nsec());
        format!("{size} {mtime}.{mtime_nsec:09} {ctime}.{ctime_nsec:09} {inode}")
    })
}

/// Returns an object's path without `.ko` and the compression suffix. If several files differ only
/// in these suffixes, depmod accepts only one of them.
pub(crate) fn slot(path: &str) -> &str {
    let suffix = Compression::ALL.into_iter().find_map(|kind| path.strip_suffix(kind.suffix()));
    suffix.unwrap_or(path)
}

/// Returns the paths that the object at `path` would have with other compressions.
pub(crate) fn other_compressions(path: &str) -> Vec<String> {
    let all = Compression::ALL.map(|kind| format!("{}{}", slot(path), kind.suffix()));
    all.into_iter().filter(|other| other != path).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::placed(Some("4096 1.000000000 1764500000.123456789 77"), Some(1_764_500_000))]
    #[case::only_intended(None, None)]
    #[case::in_another_format(Some("4096 1.000000000 today 77"), None)]
    fn the_time_of_placing_is_the_change_time(
        #[case] stat: Option<&str>,
        #[case] want: Option<u64>,
    ) {
        let object = BuiltObject {
            name: "a.ko".into(),
            digest: Digest::of_bytes(b""),
            location: "updates/dkms".into(),
            built_for: None,
        };
        let module = "a/1".parse().unwrap();
        let placed = Placed {
            stat: stat.map(str::to_owned),
            ..Placed::intended(&module, &Arch::of_this_machine(), &object, None)
        };
        let want = want.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(placed.placed_at(), want);
    }
}

//! Packs modules into archives and unpacks them, as `dkms mktarball` and `ldtarball` do.

mod import;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::dkms_tree::FILE_NAME;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::durable::{self, FileError};
use crate::os::process::{Environment, Output, Program};
use crate::os::{copy_tree, paths, symlinks};

use import::{BUILDS, NO_SOURCE, SOURCE};
pub use import::{from_directory, from_unpacked, source_in};

/// The subdirectory of a temporary directory into which an archive is unpacked.
///
/// The mode of the archive's member `./` applies to this subdirectory, so the mode of the temporary
/// directory does not change.
const CONTENTS: &str = "contents";

/// The contents and the path of an archive to write.
#[derive(Debug)]
pub struct Packing {
    /// The module to pack.
    pub id: ModuleId,
    /// The builds to pack; `None` for `--source-only`.
    pub builds: Option<Vec<(KernelRelease, Arch)>>,
    /// Whether to pack the source; false for `--binaries-only`.
    pub source: bool,
    /// The value of `--archive`: a path, or a file name in the default directory. `None` means the
    /// default name.
    pub archive: Option<PathBuf>,
}

impl Packing {
    /// Writes the archive and returns its path.
    ///
    /// # Errors
    /// [`Failure`] with exit code 6 if a build is missing or the files cannot be packed, and 9 if
    /// the archive cannot be written to its directory.
    pub fn write(&self, machine: &Machine) -> Result<PathBuf, Failure> {
        let room = temporary(machine)?;
        let contents = room.path().join(CONTENTS);
        let failed = |error: FileError| Failure::new(6, error.to_string());
        self.gather(machine, &contents).map_err(failed)?;
        let target = self.target(machine);
        let dir = target.parent().unwrap_or(Path::new("."));
        let unwritable =
            |why: String| Failure::new(9, format!("cannot write to {}: {why}", dir.display()));
        durable::create_dirs(dir).map_err(|error| unwritable(error.source.to_string()))?;
        // The archive is written to a temporary directory and then renamed, so that it is never
        // incomplete. It has its final name from the start, since tar derives the compression from
        // the name.
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = tempfile::Builder::new().prefix(durable::UNFINISHED).tempdir_in(dir);
        let beside = beside.map_err(|error| unwritable(error.to_string()))?;
        let unfinished = beside.path().join(&name);
        let words = [OsString::from("--create"), "--auto-compress".into(), "--file".into()];
        let words = words.into_iter().chain([unfinished.clone().into()]);
        let words = words.chain(["--directory".into(), contents.into(), ".".into()]);
        tar(machine, &env(machine), words, Output::Capture).map_err(|why| Failure::new(6, why))?;
        let placed = fs::rename(&unfinished, &target).map_err(FileError::when("write", &target));
        placed.map_err(|error| Failure::new(9, error.to_string()))?;
        Ok(target)
    }

    /// Copies the future contents of the archive to the directory `room` (dkms-behaviour 8.3).
    fn gather(&self, machine: &Machine, room: &Path) -> Result<(), FileError> {
        let trees = &machine.trees;
        durable::create_dirs(&room.join(BUILDS))?;
        for (kernel, arch) in self.builds.iter().flatten() {
            let to = room.join(BUILDS).join(kernel);
            durable::create_dirs(&to)?;
            copy_tree::copy_tree(&trees.built(&self.id, kernel, arch), &to.join(arch))?;
            remove_own_files(&to.join(arch))?;
        }
        let link = trees.source_link(&self.id);
        let source = symlinks::resolve(&trees.root, &link).unwrap_or(link);
        if self.source {
            let copied = copy_tree::copy_tree(&source, &room.join(SOURCE))?;
            copied.note().inspect(|note| log::warn!("{note}"));
            return Ok(());
        }
        let dir = room.join(NO_SOURCE);
        durable::create_dirs(&dir)?;
        durable::write(&dir.join("PACKAGE_NAME"), format!("{}\n", self.id.name).as_bytes())?;
        durable::write(&dir.join("PACKAGE_VERSION"), format!("{}\n", self.id.version).as_bytes())?;
        let conf = machine.options.conf_of(&self.id, &source);
        let text = fs::read(&conf).map_err(FileError::when("read", &conf))?;
        durable::write(&dir.join("dkms.conf"), &text)
    }

    /// Returns the path of the archive. As in dkms, a bare file name is relative to
    /// `T/M/V/tarball`.
    fn target(&self, machine: &Machine) -> PathBuf {
        let usual = machine.trees.version(&self.id).join("tarball");
        match &self.archive {
            Some(path) if path.components().count() > 1 || path.is_absolute() => path.clone(),
            Some(name) => usual.join(name),
            None => usual.join(self.name()),
        }
    }

    fn name(&self) -> String {
        let builds = self.builds.as_ref().map(|builds| {
            let names = builds.iter().map(|(kernel, arch)| format!("kernel{kernel}-{arch}"));
            names.collect::<Vec<_>>().join("-")
        });
        let what = match builds {
            None => "source-only".to_owned(),
            Some(kernels) if kernels.chars().count() >= 200 => "manykernels".to_owned(),
            Some(kernels) => kernels,
        };
        format!("{}-{what}.dkms.tar.gz", self.id.source_dir())
    }
}

/// An archive unpacked into a temporary directory, which is deleted when this value is dropped.
///
/// No other user can enter the directory.
#[derive(Debug)]
pub struct Unpacked {
    _room: TempDir,
    contents: PathBuf,
}

impl Unpacked {
    /// Returns the directory that contains the unpacked files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.contents
    }
}

/// Unpacks an archive into a temporary directory.
///
/// # Errors
/// [`Failure`] with exit code 2 if the file does not exist, 3 if it is not an archive, 7 if it
/// contains a special file, or a path or link that leads out of the directory, and 9 if it is an
/// RPM package. No file is written outside the directory.
pub fn unpack(machine: &Machine, file: &Path) -> Result<Unpacked, Failure> {
    let shown = file.display();
    if !file.is_file() {
        return Err(Failure::new(2, format!("{shown}: file not found")));
    }
    if file.extension().is_some_and(|end| end == "rpm") {
        let message = format!("{shown}: RPM package, not a dkms archive");
        let hint = format!("run: rpm -Uvh {shown} && dkms autoinstall");
        return Err(Failure::new(9, message).with_hint(hint));
    }
    let no_archive = |why: String| Failure::new(3, format!("cannot unpack {shown}: {why}"));
    let refuse = |member: &str| {
        let message = format!("{shown}: unsafe archive member: {member:?}; nothing was imported");
        Failure::new(7, message)
    };
    let mut outside = None;
    // The output also contains tar's error messages.
    let complaint = format!("{}: ", machine.tools.tar.display());
    let mut see = |name: &str| {
        if outside.is_none() && !name.starts_with(&complaint) && !stays_inside(Path::new(name)) {
            outside = Some(name.to_owned());
        }
    };
    let list = ["--list", "--absolute-names", "--quoting-style=escape", "--file"];
    let list = list.into_iter().map(OsString::from).chain([file.into()]);
    let env = env(machine);
    let listed = tar(machine, &env, list, Output::Lines(&mut see));
    if let Some(member) = outside {
        return Err(refuse(&member));
    }
    listed.map_err(no_archive)?;
    let room = temporary(machine)?;
    let contents = room.path().join(CONTENTS);
    durable::create_dirs(&contents)?;
    // The file owners in the archive come from another machine.
    let words = ["--extract", "--no-same-owner", "--file"].into_iter().map(OsString::from);
    let words = words.chain([file.into(), "--directory".into(), (&contents).into()]);
    tar(machine, &env, words, Output::Capture).map_err(no_archive)?;
    match unsafe_member(&contents) {
        Some(member) => Err(refuse(&member.to_string_lossy())),
        None => Ok(Unpacked { _room: room, contents }),
    }
}

/// Returns the first member in `dir` that is a special file, or a link that leads out of `dir`.
fn unsafe_member(dir: &Path) -> Option<PathBuf> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    let bad = |entry: &walkdir::DirEntry| {
        let kind = entry.file_type();
        if !kind.is_symlink() {
            return !kind.is_dir() && !kind.is_file();
        }
        let above = entry.path().strip_prefix(dir).ok().and_then(Path::parent);
        let target = fs::read_link(entry.path());
        match (above, target) {
            (Some(above), Ok(target)) => !stays_inside(&above.join(target)),
            _ => true,
        }
    };
    let found = entries.filter_map(Result::ok).find(bad)?;
    found.path().strip_prefix(dir).ok().map(Path::to_owned)
}

/// Returns true if `path` is relative and never leads above the directory in which it starts.
fn stays_inside(path: &Path) -> bool {
    path.is_relative() && paths::within(path).is_some()
}

/// Removes alpm-dkms's own files from a copied build, since they are meaningless on another
/// machine. Keeps dkms's `.dep_*` files.
fn remove_own_files(build: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(build).map_err(FileError::when("list", build))?.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let hidden = name.starts_with(b".") && !name.starts_with(b".dep_");
        if hidden || name == FILE_NAME.as_bytes() {
            durable::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Creates a temporary directory that no other user can enter.
fn temporary(machine: &Machine) -> Result<TempDir, Failure> {
    let dir = machine.temporary_dir();
    let closed = fs::Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix("dkms.").permissions(closed).tempdir_in(&dir);
    made.map_err(|why| {
        Failure::new(1, format!("cannot create a directory in {}: {why}", dir.display()))
    })
}

/// Runs tar with the arguments `words`. The error is tar's message.
fn tar<'a>(
    machine: &'a Machine,
    env: &'a Environment,
    words: impl Iterator<Item = OsString>,
    output: Output<'a>,
) -> Result<(), String> {
    let program = Program::new(&machine.tools.tar, env)
        .args(words)
        .arg("--force-local") // a colon in a file name does not mark a remote host
        .deadline(machine.settings.build_timeout())
        .output(output);
    match program.run() {
        Ok(ended) if ended.success() => Ok(()),
        Ok(ended) => Err(match ended.complaint() {
            said if said.is_empty() => format!("tar {}", ended.how),
            said => said,
        }),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the environment for tar, without the user's `TAR_OPTIONS`.
fn env(machine: &Machine) -> Environment {
    machine.env.clone().without("TAR_OPTIONS")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("./a/b", true)]
    #[case::back_and_forth("a/../b", true)]
    #[case::absolute("/etc/passwd", false)]
    #[case::up("../x", false)]
    #[case::up_later("a/../../x", false)]
    fn detects_paths_that_lead_out(#[case] path: &str, #[case] inside: bool) {
        assert_eq!(stays_inside(Path::new(path)), inside);
    }

    #[rstest]
    #[case::one(Some(1), "foo-1-kernel6.0-x86_64.dkms.tar.gz")]
    #[case::two(Some(2), "foo-1-kernel6.0-x86_64-kernel6.1-x86_64.dkms.tar.gz")]
    #[case::many(Some(12), "foo-1-manykernels.dkms.tar.gz")]
    #[case::source(None, "foo-1-source-only.dkms.tar.gz")]
    fn names_archives_as_dkms_does(#[case] kernels: Option<usize>, #[case] name: &str) {
        let arch: Arch = "x86_64".parse().unwrap();
        let build = |n| (format!("6.{n}").parse().unwrap(), arch.clone());
        let builds = kernels.map(|count| (0..count).map(build).collect());
        let id = "foo/1".parse().unwrap();
        let packing = Packing { id, builds, source: true, archive: None };
        assert_eq!(packing.name(), name);
    }
}

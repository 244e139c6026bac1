//! Copies a module's source to the build directory and patches the copy for a kernel.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{Build, Prepared};
use crate::building::make_log::MakeLog;
use crate::failure::Failure;
use crate::machine::WrittenFiles;
use crate::os::copy_tree::{self, Copied};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::process::{Output, Program};
use crate::os::walk::{self, Walk};
use crate::report::Phase;

impl Build<'_> {
    /// Stores a copy of the source in the dkms tree. Scripts, and builds for other kernels, need
    /// the copy after the package has been removed.
    pub(super) fn keep_source(&self) -> Result<(), FileError> {
        let mut shared = self.alone();
        let kept = self.machine.trees.kept(self.id);
        let source = self.source()?;
        if source != kept && !shared.kept {
            keep(&source, &kept, copy_tree::keep_tree)?;
        }
        shared.kept = true;
        Ok(())
    }

    pub(super) fn source(&self) -> Result<PathBuf, FileError> {
        let link = self.machine.trees.source_link(self.id);
        crate::os::symlinks::resolve(&self.machine.trees.root, &link)
            .map_err(FileError::when("resolve", &link))
    }

    /// Copies the source to the build directory. Returns the digest of the copy, which is an input
    /// of the build. The digest excludes changes that the module's scripts have made to the source.
    /// Returns `None` if the script of an installation ran during the copy, because the changes by
    /// that script are not known yet.
    pub(super) fn copy_source(&self) -> Result<Option<Digest>, Failure> {
        let source = self.source()?;
        let entries = fs::read_dir(&source).map_err(FileError::when("list", &source))?;
        let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
        if entries.flatten().filter(|entry| !hidden(&entry.file_name())).nth(1).is_none() {
            let what = format!("{}: contains only dkms.conf", source.display());
            return Err(Failure::new(8, what));
        }
        let scripts = || self.machine.script_changes.scripts_outside_builds(self.id);
        let scripts_before = scripts();
        let build = &self.workplace.real;
        let copied = self.workplace.fill(|place| copy_tree::take_tree(&source, place))?;
        self.report_source(&source, &copied);
        let written = WrittenFiles::read_all(&self.machine.trees);
        let written = written.get(&self.id.source_dir()).cloned().unwrap_or_default();
        let contents = Walk::over(&walk::whole(build))?.contents()?;
        let used = walk::digest_of(&written.undo(contents));
        let is_known = scripts_before.is_some() && scripts_before == scripts();
        let patches = self.machine.trees.etc.join(&self.id.name).join("patches");
        if patches.is_dir() {
            overlay(&patches, &build.join("patches"), build)?;
        }
        Ok(is_known.then_some(used))
    }

    /// Reports, once for all kernels, special files in the source and files that users other than
    /// root can change.
    fn report_source(&self, source: &Path, copied: &Copied) {
        if std::mem::replace(&mut self.alone().reported, true) {
            return;
        }
        if let Some(note) = copied.note() {
            (self.say)(format!("note: {}: {note}", self.id));
        }
        let root = &self.machine.trees.root;
        if let Some(path) = copied.open_to_others.as_ref() {
            let (path, dir) = (path.display(), source.display());
            self.machine.warnings.add(format!(
                "{}: {path}: users other than root can change the source\n  run: chown -R root:root \
                 {dir} && chmod -R go-w {dir}",
                self.id
            ));
        } else if let Some(path) = copy_tree::dir_open_to_others(source, root) {
            let path = path.display();
            let message =
                format!("{}: {path}: users other than root can replace the source", self.id);
            self.machine.warnings.add(message);
        }
    }

    /// Applies the patches for this kernel to the working copy (dkms-behaviour 3.4 and 4.1).
    pub(super) fn patch(&self, prepared: &Prepared, log: &mut MakeLog) -> Result<(), Failure> {
        for patch in &prepared.conf.patches {
            (self.report)(Phase::Patching);
            let file = Path::new("./patches").join(patch);
            let is_outside = file.components().any(|part| part == Component::ParentDir);
            if is_outside || !self.workplace.real.join(&file).is_file() {
                let what = format!("{}: patch not found in the source", file.display());
                return Err(self.failed(5, &what));
            }
            let program = Program::new("patch", &prepared.env)
                .args(["-p1", "-i"])
                .arg(&file)
                .cwd(&self.workplace.seen)
                .deadline(self.machine.settings.build_timeout())
                .confined(&self.machine.tools);
            let program = self.workplace.show(program);
            let command = format!("patch -p1 < {}", file.display());
            let ended = log
                .step(&format!("Applying patch {patch}"), &command, |file| {
                    program.output(Output::Log(file)).run()
                })
                .map_err(|error| self.not_run(error))?;
            if !ended.success() {
                return Err(self.step_failed(log, 6, &format!("{patch}: patch does not apply")));
            }
        }
        Ok(())
    }
}

/// Replaces the directory `kept` with a copy of `source`, which the function `copy` creates.
pub(crate) fn keep(
    source: &Path,
    kept: &Path,
    copy: impl FnOnce(&Path, &Path) -> Result<Copied, FileError>,
) -> Result<(), FileError> {
    let unfinished = kept.with_file_name(format!(
        "{}{}",
        durable::UNFINISHED,
        kept.file_name().unwrap_or_default().to_string_lossy()
    ));
    if let Some(parent) = kept.parent() {
        durable::create_dirs(parent)?;
    }
    durable::remove_tree(&unfinished)?;
    copy(source, &unfinished)?;
    durable::remove_tree(kept)?;
    fs::rename(&unfinished, kept).map_err(FileError::when("write", kept))
}

/// Copies all files from the directory `from` to `to`, a directory inside the build directory
/// `build`. Replaces existing files, and skips special files.
///
/// `to` may contain symbolic links from the module's source. A link to a directory outside `build`
/// is replaced with a directory.
fn overlay(from: &Path, to: &Path, build: &Path) -> Result<(), FileError> {
    create_dir_within(to, build)?;
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry.map_err(std::io::Error::from).map_err(FileError::when("read", from))?;
        let Ok(below) = entry.path().strip_prefix(from) else { continue };
        let place = to.join(below);
        if entry.file_type().is_dir() {
            create_dir_within(&place, build)?;
        } else if !entry.path().is_file() {
            log::warn!("{}: skipped: not a regular file", entry.path().display());
        } else {
            if place.is_symlink() {
                durable::remove_file_if_there(&place)?;
            }
            copy_file(entry.path(), &place)?;
        }
    }
    Ok(())
}

fn create_dir_within(dir: &Path, build: &Path) -> Result<(), FileError> {
    let real = |path: &Path| path.canonicalize().ok();
    if dir.is_symlink()
        && !real(dir).zip(real(build)).is_some_and(|(dir, build)| dir.starts_with(build))
    {
        durable::remove_file_if_there(dir)?;
    }
    durable::create_dirs(dir)
}

pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::copy(from, to).map(|_| ()).map_err(FileError::when("write", to))
}

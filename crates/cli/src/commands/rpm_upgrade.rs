//! `--rpm_safe_upgrade`: keeps a module across the upgrade of its RPM.
//!
//! rpm runs the new package's scripts before the old package's scripts. If both packages contain
//! the same module version, the old package's script must not remove the module that the new
//! package's script has added. A note in the temporary directory records that the current rpm
//! transaction added the module.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use dkms_engine::dkms_tree::TreeState;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::ModuleId;
use dkms_engine::plan::Verb;
use nix::unistd::{Uid, getppid};

use crate::args::refusal::refuse;
use crate::commands::change::check_writable;

/// Writes a note if `verb` is going to add the module. Returns true if `verb` must not remove the
/// module, because the current rpm transaction added it.
///
/// # Errors
/// [`Failure`] with exit code 1, as in dkms, if the dkms tree is not writable or the note cannot be
/// written.
pub fn keeps(machine: &Machine, verb: Verb, module: &ModuleId) -> Result<bool, Failure> {
    let modules = TreeState::read(&machine.trees).modules;
    let is_added = modules.iter().any(|added| added.id == *module && added.is_added());
    match verb {
        // As in dkms, even if the module is already added.
        Verb::Add => {}
        Verb::Build | Verb::Install if !is_added => {}
        Verb::Remove if is_added => {
            check_writable(machine)?;
            return Ok(take_note(machine, module));
        }
        Verb::Build | Verb::Install | Verb::Remove | Verb::Unbuild | Verb::Uninstall => {
            return Ok(false);
        }
    }
    check_writable(machine)?;
    note(machine, module).map(|()| false)
}

/// Writes a note that the rpm transaction of this process adds a module.
fn note(machine: &Machine, module: &ModuleId) -> Result<(), Failure> {
    let Some(transaction) = Transaction::of_this_process() else { return Ok(()) };
    let dir = machine.temporary_dir();
    let written = tempfile::Builder::new()
        .prefix(&transaction.prefix())
        .tempfile_in(&dir)
        .and_then(|mut note| {
            note.write_all(transaction.text(module).as_bytes())?;
            note.keep().map_err(|error| error.error)
        });
    match written {
        Ok(_) => Ok(()),
        Err(why) => refuse(1, format!("cannot create a file in {}: {why}", dir.display())),
    }
}

/// Returns true if a note says that the rpm transaction in which this process runs added the
/// module. Deletes the note, because it counts only once.
fn take_note(machine: &Machine, module: &ModuleId) -> bool {
    let Some(transaction) = Transaction::of_this_process() else { return false };
    let (prefix, text) = (transaction.prefix(), transaction.text(module));
    let own_note: Option<PathBuf> = fs::read_dir(machine.temporary_dir())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()))
        // Any user may write to this directory, so ignore the files of other users.
        .filter(|entry| {
            entry.metadata().is_ok_and(|it| it.is_file() && it.uid() == Uid::effective().as_raw())
        })
        .map(|entry| entry.path())
        .find(|path| fs::read_to_string(path).is_ok_and(|noted| noted == text));
    own_note.is_some_and(|note| fs::remove_file(note).is_ok())
}

/// An rpm transaction, identified by the process of rpm. rpm starts a shell for each script, so rpm
/// is the grandparent of this process.
struct Transaction {
    /// The process ID of rpm.
    pid: i32,
    /// The start time of rpm in clock ticks after boot (proc_pid_stat(5)). It distinguishes
    /// processes that reuse a process ID.
    start: String,
}

impl Transaction {
    fn of_this_process() -> Option<Self> {
        let pid: i32 = stat(getppid().as_raw())?.get(1)?.parse().ok()?;
        Some(Self { pid, start: stat(pid)?.get(19)?.clone() })
    }

    /// Returns the prefix of the file names of the transaction's notes.
    fn prefix(&self) -> String {
        format!("dkms_rpm_safe_upgrade_lock.{}.", self.pid)
    }

    fn text(&self, ModuleId { name, version }: &ModuleId) -> String {
        format!("{name}-{version}\n{}\n", self.start)
    }
}

/// Returns the fields of `/proc/PID/stat` after the name, starting with the state and the parent's
/// process ID. Returns `None` if the process does not exist.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses, and may contain parentheses itself.
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

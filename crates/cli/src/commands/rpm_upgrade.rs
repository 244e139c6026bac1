//! `--rpm_safe_upgrade`: rpm runs the new package's scripts before those of the old one. If both bring the same module,
//! what the new one has added must outlive the removal of the old one.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use dkms_engine::failure::Failure;
use dkms_engine::names::ModuleId;
use dkms_engine::plan::Verb;
use dkms_engine::site::Site;
use dkms_engine::state::State;
use nix::unistd::{Uid, getppid};

use crate::args::refusal::refuse;
use crate::commands::change::check_writable;

/// Notes what is going to be added; and tells whether a module is to be kept though it is to be removed.
///
/// # Errors
/// [`Failure`] (dkms's 1) if the dkms tree cannot be written to, or if there is no room for the note.
pub fn keeps(site: &Site, verb: Verb, module: &ModuleId) -> Result<bool, Failure> {
    let modules = State::read(&site.trees).modules;
    let is_added = modules.iter().any(|added| added.id == *module && added.is_added());
    match verb {
        // As with dkms, also if it will turn out to be added already.
        Verb::Add => {}
        Verb::Build | Verb::Install if !is_added => {}
        Verb::Remove if is_added => {
            check_writable(site)?;
            return Ok(take_note(site, module));
        }
        Verb::Build | Verb::Install | Verb::Remove | Verb::Unbuild | Verb::Uninstall => {
            return Ok(false);
        }
    }
    check_writable(site)?;
    note(site, module).map(|()| false)
}

/// Notes that the transaction which this process belongs to has added a module.
fn note(site: &Site, module: &ModuleId) -> Result<(), Failure> {
    let Some(transaction) = Transaction::of_this_process() else { return Ok(()) };
    let dir = site.temporary_dir();
    let written = tempfile::Builder::new()
        .prefix(&transaction.prefix())
        .tempfile_in(&dir)
        .and_then(|mut note| {
            note.write_all(transaction.text(module).as_bytes())?;
            note.keep().map_err(|error| error.error)
        });
    match written {
        Ok(_) => Ok(()),
        Err(why) => refuse(1, format!("no file can be made in {}: {why}", dir.display())),
    }
}

/// Whether the transaction which this process belongs to has added a module. The note of it is removed: it holds once.
fn take_note(site: &Site, module: &ModuleId) -> bool {
    let Some(transaction) = Transaction::of_this_process() else { return false };
    let (prefix, text) = (transaction.prefix(), transaction.text(module));
    let own: Option<PathBuf> = fs::read_dir(site.temporary_dir())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()))
        // Anybody may write there, and must not keep us from removing anything.
        .filter(|entry| {
            entry.metadata().is_ok_and(|it| it.is_file() && it.uid() == Uid::effective().as_raw())
        })
        .map(|entry| entry.path())
        .find(|path| fs::read_to_string(path).is_ok_and(|noted| noted == text));
    own.is_some_and(|note| fs::remove_file(note).is_ok())
}

/// The process that started the one that started us: rpm, which starts a shell for each script.
struct Transaction {
    /// Its number.
    pid: i32,
    /// When it was started, in ticks of the clock since the machine was (proc_pid_stat(5)): numbers are used again.
    start: String,
}

impl Transaction {
    fn of_this_process() -> Option<Self> {
        let pid: i32 = stat(getppid().as_raw())?.get(1)?.parse().ok()?;
        Some(Self { pid, start: stat(pid)?.get(19)?.clone() })
    }

    /// How the names of its notes begin.
    fn prefix(&self) -> String {
        format!("dkms_rpm_safe_upgrade_lock.{}.", self.pid)
    }

    fn text(&self, ModuleId { name, version }: &ModuleId) -> String {
        format!("{name}-{version}\n{}\n", self.start)
    }
}

/// What the kernel tells of a process, behind its name: its state, its parent, and so on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets, and may hold some itself.
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

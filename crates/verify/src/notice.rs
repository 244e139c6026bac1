//! Reports the faults that concern the next boot or the running kernel, until they are corrected.
//!
//! The text is in the dkms tree, so that systemd-tmpfiles can link to it again after a reboot.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use dkms_engine::machine::Machine;
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::os::journal::{self, Priority};
use dkms_engine::os::process::Program;
use dkms_engine::os::symlinks;

use crate::{Fault, faults_that_matter};

/// The link that pam_motd(8) shows at login.
const MOTD: &str = "run/motd.d/alpm-dkms";

/// The identifier of the journal entry (systemd.journal-fields(7)).
const MESSAGE_ID: &str = "0eb1a9a6c3c94bd6a17f2b6f4a3d5b8e";

/// The time limit of the command in the settings.
const PATIENCE: Duration = Duration::from_secs(30);

/// Checks the running kernel and the kernel that boots by default. Writes the faults to the journal
/// and to the message at login, and passes them to the configured command, unless an earlier run
/// has made the same report. Removes the report if there is no fault.
///
/// # Errors
/// [`FileError`] if the report cannot be stored or removed.
pub fn renew(machine: &Machine) -> Result<(), FileError> {
    // After a signal, confs and presets are not read any more, so the faults cannot be known.
    if machine.tools.stop.asked().is_some() {
        return Ok(());
    }
    let settings = &machine.settings.notify;
    let mut faults = if settings.enable { faults_that_matter(machine) } else { Vec::new() };
    // The fault of a module says more than a fault that may be its consequence.
    faults.sort_by_key(|fault| fault.module.is_none());
    let (file, link) = (machine.trees.notice(), machine.trees.root.join(MOTD));
    let Some(text) = text(&faults) else {
        durable::remove_file_if_there(&link)?;
        return durable::remove_file_if_there(&file).map(|_| ());
    };
    let line = format!("{text}\n");
    let is_shown = link.is_symlink();
    if is_shown && fs::read_to_string(&file).is_ok_and(|earlier| earlier == line) {
        return Ok(());
    }
    durable::write(&file, line.as_bytes())?;
    if let Some(dir) = link.parent() {
        durable::create_dirs(dir)?;
    }
    durable::remove_file_if_there(&link)?;
    let target = symlinks::text_for(&machine.trees.root, &file);
    symlink(target, &link).map_err(FileError::when("create", &link))?;
    announce(machine, &text);
    Ok(())
}

/// Renews an existing report, because the faults may have been corrected.
///
/// # Errors
/// See [`renew`].
pub fn renew_existing(machine: &Machine) -> Result<(), FileError> {
    if machine.trees.notice().exists() { renew(machine) } else { Ok(()) }
}

/// Adds an entry to the journal, and runs the command in the settings. Errors are only logged,
/// because the report at login remains.
fn announce(machine: &Machine, text: &str) {
    if let Err(error) = journal::log(&machine.env, text, MESSAGE_ID, Priority::Error) {
        log::info!("{error}");
    }
    let command = &machine.settings.notify.command;
    if command.is_empty() {
        return;
    }
    let ended = Program::new("sh", &machine.env)
        .args(["-c", command])
        .stdin(format!("{text}\n"))
        .deadline(PATIENCE)
        .run();
    match ended {
        Ok(ended) if ended.success() => {}
        Ok(ended) => log::warn!("[notify] command failed ({}): {command}", ended.how),
        Err(error) => log::warn!("[notify] command: {error}"),
    }
}

/// Returns the report on `faults` on one line, or `None` if there are none.
fn text(faults: &[Fault]) -> Option<String> {
    match faults {
        [] => None,
        [one] => Some(format!("dkms: {}; run: dkms verify", one.problem)),
        [first, rest @ ..] => {
            Some(format!("dkms: {} (and {} more); run: dkms verify", first.problem, rest.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line() {
        let fault = |problem: &str| Fault::new(None, None, format!("{problem}\n  run: this"));
        assert_eq!(text(&[]), None);
        let one = text(&[fault("zfs: missing")]).expect("a text");
        assert_eq!(one, "dkms: zfs: missing; run: dkms verify");
        let three = text(&["zfs: missing", "b", "c"].map(fault)).expect("a text");
        assert_eq!(three, "dkms: zfs: missing (and 2 more); run: dkms verify");
    }

    #[test]
    fn the_catalogue_explains_the_journal_entry() {
        let catalogue = include_str!("../../../packaging/alpm-dkms.catalog");
        assert!(catalogue.contains(&format!("-- {MESSAGE_ID}\nSubject: ")));
    }
}

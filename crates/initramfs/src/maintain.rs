//! The interface for hooks and commands that regenerate or report pending images.

use std::path::Path;

use dkms_engine::facts::running_pacman;
use dkms_engine::machine::Lock;
use dkms_engine::machine::Machine;
use dkms_engine::os::durable::FileError;

use crate::assess::{Assessment, KernelAssessment};
use crate::generators::Generator;
use crate::leftovers;
use crate::pending::PendingImages;
use crate::snapshot::Snapshot;

/// The action to take on pending images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    /// Regenerate the stale images.
    Regenerate,
    /// Report the stale images, and clear the pending work of kernels whose images are up to date.
    Report,
    /// Report the stale images and the commands that would regenerate them. Change nothing.
    DryRun,
}

/// The state of the pending images after [`maintain_images`] has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintained {
    /// There was nothing to do.
    Nothing,
    /// All images are up to date.
    UpToDate,
    /// Some images are still stale and stay pending.
    Stale,
    /// A transaction is running, so the images are left to its hooks.
    Left,
}

/// Returns true if images are pending.
#[must_use]
pub fn has_pending_images(machine: &Machine) -> bool {
    !PendingImages::read(machine).is_empty()
}

/// Returns true if images are pending, if a killed run left temporary files beside images, or if
/// there is a snapshot of images that are no longer pending.
#[must_use]
pub fn needs_maintenance(machine: &Machine) -> bool {
    has_pending_images(machine)
        || machine.trees.images().exists()
        || !leftovers::find(machine).is_empty()
}

/// Regenerates or reports the pending images of this machine. Except in a dry run, first removes
/// the temporary files that killed runs left beside images.
///
/// Passes each line of output to `say`. Takes the lock, except in a dry run. If the machine's root
/// is not `/`, only reports the images, because a generator would write the images of the running
/// system.
///
/// After a signal to stop, lets the running generator finish, checks its images and restores them
/// if necessary. The other images stay pending.
///
/// # Errors
/// [`FileError`] if the lock cannot be taken. An image that cannot be regenerated is not an error:
/// the result is [`Maintained::Stale`].
pub fn maintain_images(
    machine: &Machine,
    generator: Option<&Generator>,
    maintenance: Maintenance,
    say: &mut dyn FnMut(&str),
) -> Result<Maintained, FileError> {
    let lock = match maintenance {
        Maintenance::DryRun => None,
        Maintenance::Regenerate | Maintenance::Report => {
            Some(Lock::take(&machine.trees, &machine.env, say)?)
        }
    };
    if maintenance != Maintenance::DryRun {
        if let Some(process) = running_pacman(machine) {
            let line = format!("images left to pacman, which is still running (process {process})");
            say(&line);
            return Ok(Maintained::Left);
        }
        if !machine.is_within_run() {
            leftovers::remove(machine);
        }
        if let Err(why) = machine.tools.stop.listen() {
            say(&format!("warning: cannot handle signals: {why}; Ctrl-C may damage an image"));
        }
    }
    let assessment = Assessment::read(machine, generator);
    if maintenance == Maintenance::DryRun {
        return Ok(dry_run(machine, &assessment, say));
    }
    let is_elsewhere = machine.trees.root != Path::new("/");
    let is_empty = assessment.kernels.is_empty();
    let is_up_to_date = if maintenance == Maintenance::Report || is_elsewhere {
        report(machine, &assessment, is_elsewhere, say)
    } else {
        lock.iter().for_each(Lock::share_with_programs);
        assessment.regenerate(machine, say)
    };
    if is_up_to_date
        && !has_pending_images(machine)
        && let Err(error) = Snapshot::delete(machine)
    {
        log::warn!("{error}");
    }
    Ok(match (is_empty, is_up_to_date) {
        (true, _) => Maintained::Nothing,
        (false, true) => Maintained::UpToDate,
        (false, false) => Maintained::Stale,
    })
}

fn dry_run(
    machine: &Machine,
    assessment: &Assessment<'_>,
    say: &mut dyn FnMut(&str),
) -> Maintained {
    let reports = assessment.reports(machine);
    reports.iter().for_each(|image| say(&image.to_string()));
    let commands = assessment.commands(machine);
    commands.iter().for_each(|command| say(&format!("would run: {}", command.line())));
    match (assessment.kernels.is_empty(), reports.is_empty()) {
        (true, _) => Maintained::Nothing,
        (false, true) => Maintained::UpToDate,
        (false, false) => Maintained::Stale,
    }
}

/// Reports the stale images, and clears the pending work of kernels whose images are up to date.
/// Returns true if no image is stale.
fn report(
    machine: &Machine,
    assessment: &Assessment<'_>,
    is_elsewhere: bool,
    say: &mut dyn FnMut(&str),
) -> bool {
    assessment.reports(machine).iter().for_each(|image| say(&format!("note: {image}")));
    if !assessment.commands(machine).is_empty() {
        if is_elsewhere {
            say("note: images of another root are not regenerated");
        }
        say("run: dkms initramfs");
    }
    assessment.clear_up_to_date(machine);
    assessment.kernels.iter().all(KernelAssessment::is_up_to_date)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use dkms_engine::dkms_tree::{PendingList, PendingWork};
    use testroot::TestRoot;

    use super::*;

    /// A generator that is run for another root would write the images of the running system.
    #[test]
    fn images_of_another_root_are_reported_and_stay_pending() {
        let root = TestRoot::new();
        root.kernel("7.2").pkgbase("linux");
        root.kernel("6.12").pkgbase("linux-lts");
        let preset = "ALL_kver=/boot/vmlinuz\nPRESETS=(default)\ndefault_image=/boot/a.img\n";
        root.write("etc/mkinitcpio.d/linux.preset", preset);
        root.write("usr/bin/mkinitcpio", "");
        let machine = Machine::for_hook(root.path());
        let pending = PendingList::of(&machine.trees);
        for kernel in ["7.2", "6.12", "5.0"] {
            let kernel = kernel.parse().unwrap();
            let objects = ["zfs".to_owned()].into();
            pending.write(&PendingWork::Image { kernel, objects }).unwrap();
        }
        let mut lines = Vec::new();
        let generator = Generator::detect(&machine);
        root.write("boot/a.img", "");
        crate::note_existing_images(&machine, generator.as_ref().unwrap()).unwrap();
        fs::remove_file(root.at("boot/a.img")).unwrap();
        let mut maintain = |maintenance| {
            let mut say = |line: &str| lines.push(line.to_owned());
            maintain_images(&machine, generator.as_ref(), maintenance, &mut say).unwrap()
        };
        assert_eq!(maintain(Maintenance::DryRun), Maintained::Stale);
        assert_eq!(pending.read().len(), 3);
        assert_eq!(maintain(Maintenance::Regenerate), Maintained::Stale);
        assert_eq!(
            lines,
            [
                "7.2 (linux): /boot/a.img: needs to be regenerated: missing",
                "would run: mkinitcpio -p linux",
                "note: 7.2 (linux): /boot/a.img: needs to be regenerated: missing",
                "note: images of another root are not regenerated",
                "run: dkms initramfs",
            ]
        );
        // The kernel without a preset and the removed kernel are no longer pending.
        let left = pending.read();
        assert!(
            matches!(&left[..], [PendingWork::Image { kernel, .. }] if kernel.as_str() == "7.2"),
            "{left:?}"
        );
    }
    /// pacman was killed after mkinitcpio's hook had removed the image of a kernel that was to be
    /// upgraded, so no image is pending.
    #[test]
    fn vanished_images_are_generated_again() {
        let root = TestRoot::new();
        root.kernel("7.2").pkgbase("linux");
        root.write("boot/initramfs-linux.img", "image");
        let command = format!("touch {}", root.at("boot/initramfs-linux.img").display());
        root.write("usr/bin/dracut", "");
        root.write("etc/dkms/alpm-dkms.toml", format!("[initramfs]\ncommand = '{command}'\n"));
        let machine = Machine::for_hook(root.path());
        let generator = Generator::detect(&machine).unwrap();
        crate::note_existing_images(&machine, &generator).unwrap();
        fs::remove_file(root.at("boot/initramfs-linux.img")).unwrap();
        assert!(needs_maintenance(&machine));
        let mut lines = Vec::new();
        let mut say = |line: &str| lines.push(line.to_owned());
        let maintained =
            maintain_images(&machine, Some(&generator), Maintenance::DryRun, &mut say).unwrap();
        assert_eq!(maintained, Maintained::Stale);
        let missing = "7.2 (linux): /boot/initramfs-linux.img: needs to be regenerated: missing";
        assert_eq!(lines, [missing.to_owned(), format!("would run: {command}")]);
    }
}

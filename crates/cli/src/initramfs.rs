//! `dkms initramfs`: says what is owed to initramfs images and pays it; and what other commands say of it.

use dkms_engine::machine::lock::Lock;
use dkms_engine::machine::{InitramfsMode, Machine};
use dkms_initramfs::accounts::Accounts;
use dkms_initramfs::owed::Owed;
use dkms_initramfs::precise;

use crate::progress::Progress;
use crate::task;
use crate::wanted::NOT_ROOT;

/// Pays what is owed, or only says what it is; gives the exit code.
pub fn carry_out(machine: &Machine, dry_run: bool, progress: &mut Progress<'_>) -> u8 {
    if dry_run {
        tell(machine, &Accounts::read(machine), progress);
        return 0;
    }
    if !task::is_root(machine) {
        progress.complain(&format!("dkms: {NOT_ROOT}"));
        return 1;
    }
    locked(machine, progress, |progress| {
        let kept = precise::keep(machine);
        if let Some(line) = precise::said(&kept) {
            progress.say(&line);
        }
        let accounts = Accounts::read(machine);
        if accounts.all.is_empty() {
            progress.say("nothing is owed to any image");
        }
        let well = accounts.settle(machine, &mut |line| progress.say(line));
        u8::from(!well || kept.is_err())
    })
}

/// After another command: pays what is owed if it `pays`, or if that is set; otherwise says what it is.
pub fn afterwards(machine: &Machine, pays: bool, progress: &mut Progress<'_>) -> u8 {
    if Owed::read(machine).is_empty() {
        return 0;
    }
    let pays = pays || machine.settings.initramfs.mode == InitramfsMode::Auto;
    locked(machine, progress, |progress| {
        let accounts = Accounts::read(machine);
        if pays {
            return u8::from(!accounts.settle(machine, &mut |line| progress.say(line)));
        }
        for line in accounts.lines() {
            progress.say(&format!("note: {line}"));
        }
        if !accounts.calls(machine).is_empty() {
            progress.say("note: regenerate it with: dkms initramfs");
        }
        accounts.clear_fine(machine);
        0
    })
}

fn tell(machine: &Machine, accounts: &Accounts, progress: &mut Progress<'_>) {
    for line in accounts.lines() {
        progress.say(&line);
    }
    let calls = accounts.calls(machine);
    if calls.is_empty() {
        progress.say("no image is to be regenerated");
    }
    for call in calls {
        progress.say(&format!("would run: {}", call.line()));
    }
}

fn locked(
    machine: &Machine,
    progress: &mut Progress<'_>,
    work: impl FnOnce(&mut Progress<'_>) -> u8,
) -> u8 {
    match Lock::take(&machine.trees, &machine.env, &mut |text| progress.say(text)) {
        Ok(_lock) => work(progress),
        Err(why) => {
            progress.complain(&format!("dkms: {why}"));
            1
        }
    }
}

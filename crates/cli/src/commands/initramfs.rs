//! `dkms initramfs`: says what is owed to initramfs images and pays it; and what other commands say of it.

use dkms_engine::lock::Lock;
use dkms_engine::settings::Mode;
use dkms_engine::site::Site;
use dkms_initramfs::accounts::Accounts;
use dkms_initramfs::owed::Owed;
use dkms_initramfs::precise;

use crate::args::refusal::NOT_ROOT;
use crate::commands::change;
use crate::output::progress::Progress;

/// Pays what is owed, or only says what it is; gives the exit code.
pub fn carry_out(site: &Site, dry_run: bool, progress: &mut Progress<'_>) -> u8 {
    if dry_run {
        tell(site, &Accounts::read(site), progress);
        return 0;
    }
    if !change::is_root(site) {
        progress.complain(&format!("dkms: {NOT_ROOT}"));
        return 1;
    }
    locked(site, progress, |progress| {
        let kept = precise::keep(site);
        if let Some(line) = precise::said(&kept) {
            progress.say(&line);
        }
        let accounts = Accounts::read(site);
        if accounts.all.is_empty() {
            progress.say("nothing is owed to any image");
        }
        let well = accounts.settle(site, &mut |line| progress.say(line));
        u8::from(!well || kept.is_err())
    })
}

/// After another command: pays what is owed if it `pays`, or if that is set; otherwise says what it is.
pub fn afterwards(site: &Site, pays: bool, progress: &mut Progress<'_>) -> u8 {
    if Owed::read(site).is_empty() {
        return 0;
    }
    let pays = pays || site.settings.initramfs.mode == Mode::Auto;
    locked(site, progress, |progress| {
        let accounts = Accounts::read(site);
        if pays {
            return u8::from(!accounts.settle(site, &mut |line| progress.say(line)));
        }
        for line in accounts.lines() {
            progress.say(&format!("note: {line}"));
        }
        if !accounts.calls(site).is_empty() {
            progress.say("note: regenerate it with: dkms initramfs");
        }
        accounts.clear_fine(site);
        0
    })
}

fn tell(site: &Site, accounts: &Accounts, progress: &mut Progress<'_>) {
    for line in accounts.lines() {
        progress.say(&line);
    }
    let calls = accounts.calls(site);
    if calls.is_empty() {
        progress.say("no image is to be regenerated");
    }
    for call in calls {
        progress.say(&format!("would run: {}", call.line()));
    }
}

fn locked(
    site: &Site,
    progress: &mut Progress<'_>,
    work: impl FnOnce(&mut Progress<'_>) -> u8,
) -> u8 {
    match Lock::take(&site.trees, &site.env, &mut |text| progress.say(text)) {
        Ok(_lock) => work(progress),
        Err(why) => {
            progress.complain(&format!("dkms: {why}"));
            1
        }
    }
}

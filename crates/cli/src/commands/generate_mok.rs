//! `dkms generate_mok`: makes the key that modules are signed with, and says how to enrol it.

use dkms_engine::lock::Lock;
use dkms_engine::names::KernelRelease;
use dkms_engine::sign;
use dkms_engine::site::Site;

use crate::output::progress::Progress;

/// Sees to it that there is a key, and gives the exit code: 1 if there is none in the end.
pub fn generate(
    site: &Site,
    kernel: Option<&KernelRelease>,
    dry_run: bool,
    progress: &mut Progress<'_>,
) -> u8 {
    if dry_run {
        progress.say("would make the key that modules are signed with, if there is none");
        return 0;
    }
    // A run that signs may be about to make the same key. Who may not take the lock is still told
    // about the key that is there, as by dkms, which asks nobody for rights here.
    let _lock = Lock::take(&site.trees, &site.env, &mut |text| progress.say(text)).ok();
    match sign::generate_mok(site, kernel) {
        Ok(mok) => {
            progress.say(&mok.to_string());
            0
        }
        Err(why) => {
            progress.complain(&format!("dkms: {why}"));
            why.code
        }
    }
}

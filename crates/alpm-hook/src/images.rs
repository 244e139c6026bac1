//! What is done before and after other packages' hooks regenerate images: note how these are, then look at what came
//! of it.

use std::io;
use std::process::ExitCode;

use dkms_engine::kernels::Kernels;
use dkms_engine::site::Site;
use dkms_initramfs::accounts::Accounts;
use dkms_initramfs::generator::Generator;
use dkms_initramfs::note::Note;
use dkms_initramfs::owed::Owed;

use crate::edge::{Call, Failure};
use crate::lines::{Lines, Names};
use crate::transaction::lock;

/// Before the hook of `generator`: notes the images of the kernels whose modules changed. Does nothing on a machine
/// whose images another generator makes: its own hook may have run already.
///
/// # Errors
/// If the lock cannot be taken, or the note cannot be written.
pub fn note(call: &Call, generator: Generator) -> Result<ExitCode, Failure> {
    let site = Site::for_hook(&call.root);
    let owed = Owed::read(&site);
    if call.dry_run || owed.is_empty() || Generator::of(&site) != Some(generator) {
        return Ok(ExitCode::SUCCESS);
    }
    let _lock = lock(call, &site)?;
    let mut kernels = Kernels::read(&site.trees)?.all;
    kernels.retain(|kernel| kernel.alive && owed.is_to(&kernel.release));
    Note::take(&site, generator, &kernels).write(&site)?;
    Ok(ExitCode::SUCCESS)
}

/// After all generators' hooks: regenerates what is still stale, puts back what became worse, and gives the verdict.
///
/// # Errors
/// If the lock cannot be taken. An image that cannot be regenerated is told in the lines and in the exit code.
pub fn verify(call: &Call) -> Result<ExitCode, Failure> {
    let site = Site::for_hook(&call.root);
    if Owed::read(&site).is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let _lock = lock(call, &site)?;
    let accounts = Accounts::read(&site);
    let mut lines = Lines::new(io::stdout(), Names::default());
    if call.dry_run {
        accounts.lines().iter().for_each(|line| lines.say(line));
        accounts.calls(&site).iter().for_each(|it| lines.say(&format!("would run: {}", it.line())));
        return Ok(ExitCode::SUCCESS);
    }
    let well = accounts.settle(&site, &mut |line| lines.say(line));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

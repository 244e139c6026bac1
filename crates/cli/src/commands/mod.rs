//! The commands, and which of them an intent is for.

mod archive;
mod cache;
mod change;
mod generate_mok;
mod initramfs;
mod kernel;
mod module;
mod rpm_upgrade;
mod status;

use dkms_engine::failure::Failure;
use dkms_engine::site::Site;

use crate::args::intent::Intent;
use crate::args::options::OptId;
use crate::args::parsed::Args;
use crate::output::console::Console;
use change::Session;

/// Carries out what a command line means, and returns the exit code.
///
/// # Errors
/// [`Failure`] if the command as a whole is refused.
pub fn run(intent: Intent, args: &Args, site: Site, console: &Console) -> Result<u8, Failure> {
    let (json, dry_run, force) =
        (args.has(OptId::Json), args.has(OptId::DryRun), args.has(OptId::Force));
    let finishes_images = matches!(intent, Intent::Autoinstall(_) | Intent::FinishPending);
    let mut session = Session { site, console, dry_run, force };
    let site = &mut session.site;
    let code = match intent {
        Intent::Status(filter) => return Ok(status::run(site, &filter, json, console)),
        Intent::Cache => return Ok(cache::list(site, json, console)),
        Intent::ClearCache => return cache::clear(site, dry_run, &mut console.progress(site)),
        Intent::Initramfs => return initramfs::run(site, dry_run, &mut console.progress(site)),
        Intent::GenerateMok(kernel) => {
            return generate_mok::run(site, kernel.as_ref(), dry_run, &mut console.progress(site));
        }
        Intent::Pack(module, kernels, wrapping) => {
            site.asked.module = Some(module.clone());
            let packing = archive::pack(site, &module, &kernels, &wrapping)?;
            if dry_run {
                console.print(&format!("would write an archive of {module}\n"));
                return Ok(0);
            }
            let path = packing.write(site)?;
            console.print(&format!("Tarball location: {}\n", path.display()));
            return Ok(0);
        }
        Intent::Autoinstall(target) => kernel::autoinstall(&mut session, target),
        Intent::FinishPending => kernel::finish_pending(&mut session),
        Intent::Match { template, target, module } => {
            kernel::matching(&mut session, template, target, module)
        }
        Intent::Clear(target, all) => kernel::clear(&mut session, target, all),
        Intent::Change(verb, subject, kernels) => {
            let rpm_upgrade = args.has(OptId::RpmSafeUpgrade);
            module::run(&mut session, verb, subject, &kernels, rpm_upgrade)?
        }
    };
    let site = &session.site;
    if dry_run || !site.images || site.tools.stop.asked().is_some() {
        return Ok(code);
    }
    match initramfs::afterwards(site, finishes_images, &mut console.progress(site)) {
        Ok(images) if code == 0 => Ok(images),
        Ok(_) => Ok(code),
        Err(failure) if code == 0 => Err(failure),
        Err(failure) => Err(Failure { code, ..failure }),
    }
}

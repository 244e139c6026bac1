//! Runs the command that a command line requests.

mod archive;
mod cache;
mod change;
mod explain;
mod generate_mok;
mod initramfs;
mod kernel;
mod lint;
mod module;
mod preflight;
mod rpm_upgrade;
mod status;
mod verify;

use ::verify::notice;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_initramfs::Generator;

use crate::args::intent::Intent;
use crate::args::options::OptId;
use crate::args::parsed::Args;
use crate::output::console::Console;
use change::Session;

/// Runs the command for `intent` and returns the exit code.
///
/// # Errors
/// [`Failure`] if the command as a whole is refused.
pub fn run(
    intent: Intent,
    args: &Args,
    machine: Machine,
    console: &Console,
) -> Result<u8, Failure> {
    let (json, dry_run, force) =
        (args.has(OptId::Json), args.has(OptId::DryRun), args.has(OptId::Force));
    let finishes_images = matches!(intent, Intent::Autoinstall(_) | Intent::FinishPending);
    let mut session = Session { machine, console, dry_run, force };
    let machine = &mut session.machine;
    let changes_modules = matches!(
        intent,
        Intent::Autoinstall(_)
            | Intent::FinishPending
            | Intent::Match { .. }
            | Intent::Clear(..)
            | Intent::Change(..)
    );
    // Generators read /usr/lib/modules, not another install tree.
    let may_change_images = changes_modules && !dry_run && args.install_tree.is_none();
    let generator = may_change_images.then(|| Generator::detect(machine)).flatten();
    machine.images = generator.is_some();
    let code = match intent {
        Intent::Status(filter) => return Ok(status::run(machine, &filter, json, console)),
        Intent::Verify(extent) => return verify::run(machine, &extent, json, console),
        Intent::Explain { module, version, kernels } => {
            return explain::run(machine, &module, version.as_ref(), kernels, json, console);
        }
        Intent::Cache => return Ok(cache::list(machine, json, console)),
        Intent::ClearCache => {
            return cache::clear(machine, dry_run, &mut console.progress(machine));
        }
        Intent::Initramfs => {
            let code = initramfs::run(machine, dry_run, &mut console.progress(machine));
            if !dry_run {
                renew_notice(machine, console);
            }
            return code;
        }
        Intent::Preflight(intent) => return preflight::run(machine, args, intent, console),
        Intent::Lint(path, target) => {
            let options = lint::Options { json, strict: args.has(OptId::Strict) };
            return lint::run(machine, &path, target, options, console);
        }
        Intent::GenerateMok(kernel) => {
            return generate_mok::run(
                machine,
                kernel.as_ref(),
                dry_run,
                &mut console.progress(machine),
            );
        }
        Intent::Pack(module, kernels, options) => {
            machine.options.module = Some(module.clone());
            let packing = archive::pack(machine, &module, &kernels, &options)?;
            if dry_run {
                console.print(&format!("would write an archive of {module}\n"));
                return Ok(0);
            }
            let path = packing.write(machine)?;
            console.print(&format!("Tarball location: {}\n", path.display()));
            return Ok(0);
        }
        Intent::Autoinstall(target) => {
            kernel::autoinstall(&mut session, target, !args.kernels.is_empty())
        }
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
    let machine = &session.machine;
    if machine.tools.stop.asked().is_some() {
        return Ok(code);
    }
    let code = match &generator {
        Some(generator) => images_afterwards(machine, generator, finishes_images, code, console),
        None => Ok(code),
    };
    if !dry_run {
        renew_notice(machine, console);
    }
    code
}

/// Maintains the images after a command with the exit code `code`. Returns `code` if the command
/// has failed, otherwise the exit code for the images.
fn images_afterwards(
    machine: &Machine,
    generator: &Generator,
    finishes_images: bool,
    code: u8,
    console: &Console,
) -> Result<u8, Failure> {
    let mut progress = console.progress(machine);
    match initramfs::afterwards(machine, Some(generator), finishes_images, &mut progress) {
        Ok(images) if code == 0 => Ok(images),
        Ok(_) => Ok(code),
        Err(failure) if code == 0 => Err(failure),
        Err(failure) => Err(Failure { code, ..failure }),
    }
}

/// Removes the notice of faults that have been corrected. If systemd runs the command, a new fault
/// causes a notice, because no user sees the output.
fn renew_notice(machine: &Machine, console: &Console) {
    let renewed = match machine.options.by_systemd {
        true => notice::renew(machine),
        false => notice::renew_existing(machine),
    };
    if let Err(error) = renewed {
        console.warn(&error.to_string());
    }
}

//! The commands on a single module: `add`, `build`, `install`, `uninstall`, `unbuild` and `remove`.

use std::collections::BTreeSet;

use dkms_engine::dkms_tree::TreeState;
use dkms_engine::facts::Scope;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Trees;
use dkms_engine::names::{Arch, KernelRelease, ModuleId};
use dkms_engine::plan::{Request, Verb};

use crate::args::subject::{KernelChoice, Subject, Target};
use crate::commands::archive::Arrival;
use crate::commands::change::{Operation, Rights, Session, check_writable};
use crate::commands::rpm_upgrade;

/// Runs the command `verb` on a module for `kernels`, and returns the exit code.
///
/// # Errors
/// [`Failure`] if the command as a whole is refused.
pub fn run(
    session: &mut Session<'_>,
    verb: Verb,
    subject: Subject,
    kernels: &KernelChoice,
    rpm_upgrade: bool,
) -> Result<u8, Failure> {
    let (module, arrival) = match subject {
        Subject::Module(module) => (module, None),
        path => {
            check_writable(&session.machine)?;
            let arrival = Arrival::read(&path, &session.machine, kernels)?;
            (arrival.import.id.clone(), Some(arrival))
        }
    };
    session.machine.options.module = Some(module.clone());
    let upgrades = rpm_upgrade && !session.dry_run;
    if upgrades && rpm_upgrade::keeps(&session.machine, verb, &module)? {
        return Ok(0);
    }
    if let Some(arrival) = arrival {
        let code = session.run(None, &import(&arrival, session.force));
        // The later steps cannot be planned before the source has been copied.
        if code != 0 || verb == Verb::Add || session.dry_run {
            return Ok(code);
        }
    }
    let mut failed = 0;
    for (arch, kernels) in by_arch(verb, &module, kernels, &session.machine.trees) {
        let operation = operation(verb, &module, kernels, session.force);
        match session.run(arch, &operation) {
            0 => {}
            code => failed = code,
        }
    }
    Ok(failed)
}

/// Returns the operation that adds a module from a directory or an archive.
fn import(arrival: &Arrival, force: bool) -> Operation {
    let (module, kernel) = (arrival.import.id.clone(), arrival.kernel.clone());
    Operation {
        scope: Scope {
            kernels: Some([kernel.clone()].into()),
            modules: Some([module.clone()].into()),
            import: Some(arrival.import.clone()),
            ..Scope::default()
        },
        request: Request::Command { verb: Verb::Add, module, kernels: Some(vec![kernel]), force },
        needs: Rights::Root,
        failure_code: None,
    }
}

fn operation(
    verb: Verb,
    module: &ModuleId,
    kernels: Option<Vec<KernelRelease>>,
    force: bool,
) -> Operation {
    Operation {
        scope: Scope {
            kernels: kernels.as_ref().map(|these| these.iter().cloned().collect()),
            modules: Some([module.clone()].into()),
            shallow: verb.unmakes(),
            ..Scope::default()
        },
        request: Request::Command { verb, module: module.clone(), kernels, force },
        needs: match verb {
            Verb::Install | Verb::Uninstall => Rights::Root,
            Verb::Add | Verb::Build | Verb::Unbuild | Verb::Remove => Rights::Write,
        },
        failure_code: None,
    }
}

/// An architecture (`None` for this machine's) and its kernels (`None` for all).
type OfArch = (Option<Arch>, Option<Vec<KernelRelease>>);

/// Groups the kernels by architecture, in the given order, because the engine works on one
/// architecture at a time.
fn by_arch(verb: Verb, module: &ModuleId, kernels: &KernelChoice, trees: &Trees) -> Vec<OfArch> {
    match kernels {
        // `build --all` builds for this machine's architecture only.
        KernelChoice::All if !verb.unmakes() => vec![(None, None)],
        KernelChoice::All => {
            arches_built_for(trees, module).into_iter().map(|arch| (arch, None)).collect()
        }
        KernelChoice::These(targets) => {
            let mut groups: Vec<OfArch> = Vec::new();
            for Target { kernel, arch } in targets {
                let group = groups.iter_mut().find(|(of, _)| of.as_ref() == Some(arch));
                match group {
                    Some((_, Some(kernels))) if kernels.contains(kernel) => {}
                    Some((_, Some(kernels))) => kernels.push(kernel.clone()),
                    _ => groups.push((Some(arch.clone()), Some(vec![kernel.clone()]))),
                }
            }
            groups
        }
    }
}

/// Returns the architectures that a module is built for. If it is not built, returns only `None`,
/// which means this machine's architecture.
fn arches_built_for(trees: &Trees, module: &ModuleId) -> Vec<Option<Arch>> {
    let state = TreeState::read(trees);
    let built = state.modules.iter().filter(|added| added.id == *module);
    let arches: BTreeSet<Arch> =
        built.flat_map(|added| &added.kernels).map(|built| built.arch.clone()).collect();
    if arches.is_empty() { vec![None] } else { arches.into_iter().map(Some).collect() }
}

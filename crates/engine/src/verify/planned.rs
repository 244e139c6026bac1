//! The faults that `dkms autoinstall` would correct, or would report.

use super::Fault;
use crate::dkms_tree::{KnownFailure, Reason};
use crate::facts::Facts;
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};
use crate::plan::{self, Action, Note, Plan, Step};

/// Returns the faults behind the steps and notes of a plan for `dkms autoinstall`.
pub(super) fn faults(machine: &Machine, facts: &Facts, plan: &Plan) -> Vec<Fault> {
    let notes = plan.notes.iter().filter_map(of_note);
    let installed = plan.jobs.iter().map(|job| &job.build).chain(&plan.before);
    let is_replaced = |id: &ModuleId| {
        plan.steps().filter_map(|step| step.action.job()).any(|(new, _)| new.name == id.name)
    };
    let removed = plan.after.iter().filter(|step| match &step.action {
        // A replaced module is left out, because the module that replaces it has a fault of its
        // own.
        Action::Uninstall { module, successors, .. } => {
            successors.is_empty() && !is_replaced(module)
        }
        Action::Unbuild(module, _) | Action::Deregister(module) => !is_replaced(module),
        _ => true,
    });
    notes.chain(installed.chain(removed).filter_map(|step| of_step(machine, facts, step))).collect()
}

/// Returns the faults that interrupted transactions have left behind.
pub(super) fn interruptions(facts: &Facts) -> Vec<Fault> {
    plan::interruptions(facts).iter().filter_map(of_note).collect()
}

fn of_step(machine: &Machine, facts: &Facts, step: &Step) -> Option<Fault> {
    let removed = |kernel: Option<&KernelRelease>, module: &ModuleId, problem: String| {
        let fault = Fault::new(kernel, Some(module), problem);
        fault.with_advice("run: dkms autoinstall --pending")
    };
    let fault = match &step.action {
        Action::Build { module, kernel } | Action::Install { module, kernel, .. } => {
            not_installed(machine, facts, step, module, kernel)
        }
        Action::Fail { module, kernel: Some(kernel), failure } => {
            let problem = format!("{module}: not installed for {kernel}: {failure}");
            Fault::new(Some(kernel), Some(module), problem)
        }
        Action::Fail { module, kernel: None, failure } => {
            Fault::new(None, Some(module), format!("{module}: not installed: {failure}"))
        }
        Action::Uninstall { module, kernel, .. } => {
            let problem = format!("{module}: removed, but still installed for {kernel}");
            removed(Some(kernel), module, problem)
        }
        Action::Unbuild(module, kernel) => {
            let problem = format!("{module}: removed, but its build for {kernel} remains");
            removed(Some(kernel), module, problem)
        }
        Action::Deregister(module) => {
            removed(None, module, format!("{module}: removed, but still in the dkms tree"))
        }
        Action::Depmod(kernel) if step.why.contains(&Reason::Index) => {
            let problem = format!("{kernel}: module index missing or outdated");
            let fault = Fault::new(Some(kernel), None, problem);
            fault.with_advice(format!("run: depmod {kernel}"))
        }
        // `kernels::removed` reports the files that removed kernels left behind.
        Action::RemoveLeftovers(_) | Action::Depmod(_) | Action::Leave => return None,
        // These steps change nothing in a kernel's directory.
        Action::ImportSource { .. }
        | Action::Load { .. }
        | Action::Register(_)
        | Action::UseKept(_)
        | Action::Adopt { .. } => return None,
    };
    Some(fault)
}

/// Returns the fault of a module that is not installed, or was built from outdated inputs.
fn not_installed(
    machine: &Machine,
    facts: &Facts,
    step: &Step,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Fault {
    let path = KnownFailure::path(&machine.trees, id, kernel, &machine.arch);
    if let Some(failure) = KnownFailure::read(&path) {
        let problem = format!("{id}: failed to build for {kernel}: {}", failure.what);
        let advice = format!("see: dkms explain {id} -k {kernel}");
        return Fault::new(Some(kernel), Some(id), problem).with_advice(advice);
    }
    let why = step.why.iter().filter(|why| !matches!(why, Reason::Cached | Reason::NotBuilt));
    let why: Vec<String> = why.map(ToString::to_string).collect();
    let problem = match why.join("; ") {
        none if none.is_empty() => format!("{id}: not installed for {kernel}"),
        why => format!("{id}: not up to date for {kernel}: {why}"),
    };
    let replaces_version = facts.installed(&id.name, kernel).is_some_and(|old| old != id);
    // `dkms install` refuses to replace a version whose objects are identical.
    let advice = match replaces_version {
        true => format!("run: dkms autoinstall -k {kernel}"),
        false => format!("run: dkms install {id} -k {kernel}"),
    };
    Fault::new(Some(kernel), Some(id), problem).with_advice(advice)
}

/// Returns the fault that a note reports, or `None` if the note reports an intended state.
fn of_note(note: &Note) -> Option<Fault> {
    let (kernel, module) = match note {
        Note::NoHeaders { kernel, .. } | Note::DanglingHeaders { kernel, .. } => {
            (Some(kernel), None)
        }
        Note::KnownFailure { module, kernel, .. }
        | Note::Deferred { module, kernel, .. }
        | Note::Tied { module, kernel, .. }
        | Note::Changed { module, kernel, .. } => (Some(kernel), Some(module)),
        Note::Held { module, .. } => (None, Some(module)),
        Note::IncompleteKernel { kernel, .. } => (Some(kernel), None),
        Note::Parked(_)
        | Note::IncompleteSource(_)
        | Note::IncompletePackage(_)
        | Note::Running { .. }
        | Note::Problem(_) => (None, None),
        Note::NoKernel { .. }
        | Note::Excluded { .. }
        | Note::Declined { .. }
        | Note::Kept { .. }
        | Note::Copy(_)
        | Note::NotAutomatic { .. }
        | Note::Already { .. }
        // `kernels` reports modules without a source.
        | Note::SourceMissing { .. } => return None,
    };
    Some(Fault::new(kernel, module, note.to_string()))
}

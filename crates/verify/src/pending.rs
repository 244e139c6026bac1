//! The faults derived from pending work.

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::machine::Machine;
use dkms_engine::names::KernelRelease;
use dkms_engine::verify::Fault;
use dkms_initramfs::{ImageReport, has_pending_images};

/// Returns the faults for the pending work of the kernels for which `is_checked` returns true. If
/// `is_checked(None)` is true, the result also contains the faults for work that concerns no
/// particular kernel and for the images in `stale`.
pub(crate) fn faults(
    machine: &Machine,
    stale: &[ImageReport],
    is_checked: impl Fn(Option<&KernelRelease>) -> bool,
) -> Vec<Fault> {
    let work = PendingList::of(&machine.trees).read();
    let mut found: Vec<Fault> = work.iter().filter_map(fault).collect();
    found.retain(|fault| is_checked(fault.kernel.as_ref()));
    if is_checked(None) && has_pending_images(machine) {
        found.extend(stale.iter().map(|image| {
            let advice = format!("run: {}", image.remedy());
            Fault::new(None, None, image.to_string()).with_advice(advice)
        }));
    }
    found
}

/// Returns the fault for an entry of the pending work. Returns `None` for images, which are
/// reported separately, and for removals that are put off on purpose.
fn fault(work: &PendingWork) -> Option<Fault> {
    let (kernel, module, problem) = match work {
        PendingWork::Install { module, kernel } => {
            (Some(kernel), Some(module), format!("{module}: not completely installed for {kernel}"))
        }
        PendingWork::Uninstall { module, kernel } => {
            let problem = format!("{module}: not completely uninstalled from {kernel}");
            (Some(kernel), Some(module), problem)
        }
        PendingWork::Remove(module) => {
            (None, Some(module), format!("{module}: not completely removed"))
        }
        PendingWork::Kernel(kernel) => {
            (Some(kernel), None, format!("{kernel}: changed since the last run"))
        }
        PendingWork::Source(dir) => {
            (None, None, format!("/usr/src/{dir}: changed since the last run"))
        }
        // These removals wait for a successor or for the next boot.
        PendingWork::DepartedSource(_) | PendingWork::DepartedKernel(_) => return None,
        PendingWork::Transaction { .. } => {
            (None, None, "transaction: not all changes have been processed".to_owned())
        }
        PendingWork::Image { .. } => return None,
    };
    Some(Fault::new(kernel, module, problem).with_advice("run: dkms autoinstall --pending"))
}

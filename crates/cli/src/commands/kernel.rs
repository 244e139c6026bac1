//! The commands on all modules of a kernel: `autoinstall`, `match`, and the `kernel_*` commands for
//! scripts of kernel packages.

use std::collections::BTreeSet;

use dkms_engine::dkms_tree::PendingList;
use dkms_engine::facts::{Scope, Subjects};
use dkms_engine::machine::{Kernels, Trees};
use dkms_engine::names::{KernelRelease, ModuleName};
use dkms_engine::plan::Request;

use crate::args::subject::Target;
use crate::commands::change::{Operation, Rights, Session};

/// `dkms autoinstall`: installs all modules with AUTOINSTALL=yes for `target`, or for every kernel
/// with headers if `target` is `None`. With `only`, leaves pending work for other kernels alone.
/// Returns the exit code.
pub fn autoinstall(session: &mut Session<'_>, target: Option<Target>, only: bool) -> u8 {
    let (kernel, arch) = target.map(|target| (target.kernel, target.arch)).unzip();
    let operation = Operation {
        scope: Scope {
            kernels: covered(&session.machine.trees, kernel.as_ref(), only),
            ..Scope::default()
        },
        request: Request::Autoinstall { kernels: kernel.map(|kernel| vec![kernel]), only },
        needs: Rights::Root,
        failure_code: Some(11),
    };
    session.run(arch, &operation)
}

/// Returns the kernels for which `autoinstall` reads facts; `None` means all.
///
/// If there is pending work, returns the set of all installed kernels even if `kernel` is given,
/// because the work may concern any kernel. If `only` is true, ignores pending work for other
/// kernels.
fn covered(
    trees: &Trees,
    kernel: Option<&KernelRelease>,
    only: bool,
) -> Option<BTreeSet<KernelRelease>> {
    let mut kernels = BTreeSet::from([kernel?.clone()]);
    if !only && !PendingList::of(trees).is_empty() {
        let all = Kernels::read(trees).map(|kernels| kernels.all).unwrap_or_default();
        kernels.extend(all.into_iter().map(|kernel| kernel.release));
    }
    Some(kernels)
}

/// `dkms autoinstall --pending`: finishes the pending work of interrupted runs. Returns the exit
/// code.
pub fn finish_pending(session: &mut Session<'_>) -> u8 {
    let no_changes = Request::Sync {
        arrived: Subjects::default(),
        departed: Subjects::default(),
        headers: BTreeSet::new(),
    };
    let operation = Operation {
        request: no_changes,
        scope: Scope::default(),
        needs: Rights::Root,
        failure_code: None,
    };
    session.run(None, &operation)
}

/// `dkms match`: installs the modules of the kernel `template` for the kernel `target`. If `module`
/// is given, installs only this module. Returns the exit code.
pub fn matching(
    session: &mut Session<'_>,
    template: KernelRelease,
    target: Target,
    module: Option<ModuleName>,
) -> u8 {
    let Target { kernel, arch } = target;
    let operation = Operation {
        scope: Scope { kernels: Some([kernel.clone()].into()), ..Scope::default() },
        request: Request::Match { template, kernel, module, force: session.force },
        needs: Rights::Root,
        failure_code: None,
    };
    session.run(Some(arch), &operation)
}

/// `dkms kernel_preinst` and `kernel_prerm`: deletes the builds for a kernel. Unless `all` is true,
/// deletes only the builds that autoinstall would make again. Returns the exit code.
pub fn clear(session: &mut Session<'_>, target: Target, all: bool) -> u8 {
    let Target { kernel, arch } = target;
    let operation = Operation {
        scope: Scope { kernels: Some([kernel.clone()].into()), shallow: all, ..Scope::default() },
        request: Request::Clear { kernel, only_willing: !all },
        needs: Rights::Root,
        failure_code: Some(14),
    };
    session.run(Some(arch), &operation)
}

//! The commands for all modules of a kernel: `autoinstall`, `match` and those of kernel packages.

use std::collections::BTreeSet;

use dkms_engine::dkms_tree::PendingList;
use dkms_engine::facts::Scope;
use dkms_engine::machine::{Kernels, Trees};
use dkms_engine::names::{KernelRelease, ModuleName};
use dkms_engine::plan::Request;

use crate::args::subject::Target;
use crate::commands::change::{Operation, Rights, Session};

/// Installs every willing module for a kernel, or for every kernel with headers; returns the exit
/// code.
pub fn autoinstall(session: &mut Session<'_>, target: Option<Target>) -> u8 {
    let (kernel, arch) = target.map(|target| (target.kernel, target.arch)).unzip();
    let operation = Operation {
        scope: Scope {
            kernels: covered(&session.machine.trees, kernel.as_ref()),
            ..Scope::default()
        },
        request: Request::Autoinstall { kernels: kernel.map(|kernel| vec![kernel]) },
        needs: Rights::Root,
        failure_code: Some(11),
    };
    session.run(arch, &operation)
}

/// The kernels that `autoinstall` looks at; `None` means all. Pending work may be for any kernel.
fn covered(trees: &Trees, kernel: Option<&KernelRelease>) -> Option<BTreeSet<KernelRelease>> {
    let mut kernels = BTreeSet::from([kernel?.clone()]);
    if !PendingList::of(trees).read().is_empty() {
        let all = Kernels::read(trees).map(|kernels| kernels.all).unwrap_or_default();
        kernels.extend(all.into_iter().map(|kernel| kernel.release));
    }
    Some(kernels)
}

/// Finishes what interrupted runs left; returns the exit code.
pub fn finish_pending(session: &mut Session<'_>) -> u8 {
    let nothing = Request::Sync { sources: BTreeSet::new(), kernels: BTreeSet::new() };
    let operation = Operation {
        request: nothing,
        scope: Scope::default(),
        needs: Rights::Root,
        failure_code: None,
    };
    session.run(None, &operation)
}

/// `dkms match`: installs for a kernel what `template` has; returns the exit code.
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

/// `dkms kernel_preinst` and `kernel_prerm`: removes the builds for a kernel, those of `all`
/// modules or of those that autoinstall brings back; returns the exit code.
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

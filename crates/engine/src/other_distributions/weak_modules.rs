//! Updates weak modules: links that let several kernels use one module on Red Hat and SUSE.

use std::path::PathBuf;
use std::time::Duration;

use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::os::process::{How, Program};

/// The timeout of the distribution's tool, which checks every kernel and can run depmod for each.
const DEADLINE: Duration = Duration::from_secs(600);

/// A change to a module's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeakChange {
    /// The objects have been installed.
    Added,
    /// The objects will be removed after this call.
    Removed,
}

/// Notifies the distribution's tool for weak modules that `objects` have changed (dkms-behaviour
/// 5.7). `objects` are paths in the kernel's directory. Returns true if a signal interrupted the
/// tool.
///
/// Does nothing on distributions without such a tool, such as Arch.
pub(crate) fn notify(
    machine: &Machine,
    kernel: &KernelRelease,
    change: WeakChange,
    objects: &[PathBuf],
) -> bool {
    let tool = |path: &PathBuf| machine.trees.inside(path);
    let (tool, option, kernels) = if machine.is_any(&["rhel"]) {
        let option = match change {
            WeakChange::Added => "--add-modules",
            WeakChange::Removed => "--remove-modules",
        };
        (tool(&machine.tools.weak_modules), option, None)
    } else if machine.is_any(&["sles", "suse", "opensuse"]) {
        let option = match change {
            WeakChange::Added => "--add-kernel-modules",
            WeakChange::Removed => "--remove-kernel-modules",
        };
        (tool(&machine.tools.weak_modules2), option, Some(kernel.as_str()))
    } else {
        return false;
    };
    if objects.is_empty() || !tool.is_file() {
        return false;
    }
    let mut program = Program::new(&tool, &machine.env);
    if kernels.is_none() {
        // Initramfs images are regenerated only once, at the end of the run.
        program = program.arg("--no-initramfs");
    }
    let list: String = objects.iter().map(|path| format!("{}\n", path.display())).collect();
    let ended = program
        .arg(option)
        .args(kernels)
        .stdin(list)
        .deadline(DEADLINE)
        .confined(&machine.tools)
        .run();
    match &ended {
        Ok(ended) if ended.success() => {}
        Ok(ended) => {
            machine.warnings.add(format!("{} failed: {}", tool.display(), ended.complaint()));
        }
        Err(error) => machine.warnings.add(error.to_string()),
    }
    ended.is_ok_and(|ended| ended.how == How::Interrupted)
}

//! Weak modules: Red Hat's and SUSE's way to use a module for kernels that it was not built for.

use std::path::PathBuf;
use std::time::Duration;

use crate::machine::Machine;
use crate::names::KernelRelease;
use crate::os::process::{How, Program};

/// The tools look at every kernel and may run depmod for it.
const DEADLINE: Duration = Duration::from_secs(600);

/// What happened to the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeakChange {
    /// They have been placed.
    Added,
    /// They are about to be removed.
    Removed,
}

/// Runs the distribution's tool, where there is one, for objects in a kernel's directory
/// (dkms-behaviour 5.7). Arch has none. Returns true if a signal interrupted it.
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
        // Images are regenerated once, after everything.
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

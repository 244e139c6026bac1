//! The running kernel: which it is, and loading what was installed for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::machine::Machine;
use crate::machine::running_release;
use crate::names::KernelRelease;
use crate::os::process::Program;

/// Devices answer at once; a driver that hangs must not keep the transaction.
const DEADLINE: Duration = Duration::from_secs(120);

/// Loads the modules that the machine's devices ask for, if `kernel` is the running one; what
/// modules-load.d names is loaded as well (dkms-behaviour 5.6).
pub(crate) fn load_modules(machine: &Machine, kernel: &KernelRelease) {
    if running_release().as_ref() != Some(kernel) {
        return;
    }
    let wanted = modaliases(&machine.trees.root.join("sys/devices"));
    // A command line has its limits, and a machine may have thousands of devices.
    for some in wanted.iter().collect::<Vec<_>>().chunks(500) {
        let loaded = Program::new(machine.tools.modprobe.clone(), &machine.env)
            .args(["-a", "-b", "-q", "--"])
            .args(some.iter().map(|alias| alias.as_str()))
            .deadline(DEADLINE)
            .run();
        // Most devices have drivers that are built in, or none: its status says nothing.
        if let Err(error) = loaded {
            return machine.warnings.add(format!("cannot load modules: {error}"));
        }
    }
    let service = "systemd-modules-load.service";
    if machine.trees.root.join("lib/systemd/system").join(service).is_file() {
        let restarted = Program::new(machine.tools.systemctl.clone(), &machine.env)
            .args(["restart", service])
            .deadline(DEADLINE)
            .run();
        match restarted {
            Ok(ended) if ended.success() => {}
            Ok(ended) => machine.warnings.add(format!("{service}: {}", ended.complaint())),
            Err(error) => machine.warnings.add(format!("{service}: {error}")),
        }
    }
}

/// What the devices below a directory say they are.
fn modaliases(devices: &Path) -> BTreeSet<String> {
    let files = walkdir::WalkDir::new(devices).into_iter().flatten();
    files
        .filter(|entry| entry.file_name() == "modalias")
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .map(|text| text.trim().to_owned())
        .filter(|alias| !alias.is_empty() && !alias.contains(char::is_control))
        .collect()
}

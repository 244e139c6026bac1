//! Loads modules after their installation for the running kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::machine::Machine;
use crate::os::process::Program;

/// The time limit for modprobe and for systemctl. A driver that hangs must not block the
/// transaction or the boot.
const DEADLINE: Duration = Duration::from_secs(120);

/// Loads the modules for the devices of the machine (dkms-behaviour 5.6).
pub(crate) fn load_for_devices(machine: &Machine) {
    let wanted = modaliases(&machine.trees.root.join("sys/devices"));
    // The length of a command line is limited, and a machine may have thousands of devices.
    for some in wanted.iter().collect::<Vec<_>>().chunks(500) {
        let loaded = Program::new(machine.tools.modprobe.clone(), &machine.env)
            .args(["-a", "-b", "-q", "--"])
            .args(some.iter().map(|alias| alias.as_str()))
            .deadline(DEADLINE)
            .run();
        // The exit status means nothing: most devices have a built-in driver or none.
        if let Err(error) = loaded {
            return machine.warnings.add(format!("cannot load modules: {error}"));
        }
    }
}

/// Loads the modules that are listed in modules-load.d(5), by restarting the service that loads
/// them. The service counts as failed if it could not load a module before, and try-restart would
/// then do nothing (systemctl(1)).
pub(crate) fn load_listed(machine: &Machine) {
    let service = "systemd-modules-load.service";
    if machine.trees.root.join("lib/systemd/system").join(service).is_file() {
        let restarted = Program::new(machine.tools.systemctl.clone(), &machine.env)
            .args(["restart", service])
            .deadline(DEADLINE)
            .run();
        match restarted {
            Ok(ended) if ended.success() => {}
            Ok(ended) => {
                machine.warnings.add(format!("cannot restart {service}: {}", ended.complaint()));
            }
            Err(error) => machine.warnings.add(format!("cannot restart {service}: {error}")),
        }
    }
}

/// Returns the modaliases of all devices below the directory `devices`.
fn modaliases(devices: &Path) -> BTreeSet<String> {
    let files = walkdir::WalkDir::new(devices).into_iter().flatten();
    files
        .filter(|entry| entry.file_name() == "modalias")
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .map(|text| text.trim().to_owned())
        .filter(|alias| !alias.is_empty() && !alias.contains(char::is_control))
        .collect()
}

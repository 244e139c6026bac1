//! The keys of Ubuntu's shim, which its own tool makes and enrols.

use crate::machine::Machine;
use crate::objects::DEADLINE;
use crate::os::process::Program;

/// The key and the certificate of shim.
pub(crate) const SHIM_KEYS: [&str; 2] =
    ["/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der"];

/// Makes the keys and requests their enrolment.
///
/// # Errors
/// The tool's complaint, if it cannot make the keys.
pub(crate) fn make_shim_keys(machine: &Machine) -> Result<(), String> {
    let tool = "update-secureboot-policy";
    let quiet = machine.env.clone().with("SHIM_NOTRIGGER", "y");
    for (option, env) in [("--new-key", &quiet), ("--enroll-key", &machine.env)] {
        let ended = Program::new(tool, env).arg(option).deadline(DEADLINE).run();
        let ended = ended.map_err(|error| error.to_string())?;
        if !ended.success() && option == "--new-key" {
            return Err(format!("{tool} {option} failed: {}", ended.complaint()));
        }
    }
    Ok(())
}

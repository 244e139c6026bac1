//! Creates and enrols Ubuntu's signing key for modules with Ubuntu's own tool.

use crate::machine::Machine;
use crate::objects::DEADLINE;
use crate::os::process::Program;

/// The paths of the private key and the certificate that Ubuntu's tool creates.
pub(crate) const SHIM_KEYS: [&str; 2] =
    ["/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der"];

/// Creates the private key and the certificate, and requests the certificate's enrolment.
///
/// # Errors
/// The tool's message if it cannot create the files.
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

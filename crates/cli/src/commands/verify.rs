//! `dkms verify`: checks that everything is as it should be.

use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use verify::{Extent, Fault};

use crate::output::console::Console;

/// The exit code if something is not as it should be.
const FAULTY: u8 = 11;

/// Prints the faults within `extent`, and returns the exit code.
///
/// # Errors
/// [`Failure`] if the kernels cannot be listed, or with exit code 2 for a kernel that is not
/// installed.
pub fn run(
    machine: &Machine,
    extent: &Extent,
    json: bool,
    console: &Console,
) -> Result<u8, Failure> {
    let faults = verify::faults(machine, extent)?;
    let text = match json {
        true => serde_json::to_string_pretty(&faults).map(|text| text + "\n").unwrap_or_default(),
        false => faults.iter().map(line).collect(),
    };
    console.print(&text);
    Ok(if faults.is_empty() { 0 } else { FAULTY })
}

/// Formats a fault on one line, so that scripts can count and filter the lines.
fn line(fault: &Fault) -> String {
    match &fault.advice {
        Some(advice) => format!("{}; {advice}\n", fault.problem),
        None => format!("{}\n", fault.problem),
    }
}

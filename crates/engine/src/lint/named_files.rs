//! Rules about the scripts and patches that a dkms.conf names.

use std::path::Path;

use super::source::Source;
use super::{Finding, Place, Severity};
use crate::module_scripts::words;
use crate::os::process::is_program;

/// The directives that name the scripts to which dkms passes the target kernel.
pub(super) const BUILD_SCRIPTS: [&str; 5] =
    ["PRE_BUILD", "POST_BUILD", "PRE_INSTALL", "POST_INSTALL", "POST_REMOVE"];

/// Reports scripts that are missing or not executable. dkms skips them with a warning.
pub(super) fn scripts(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_set = |name| source.values.text(name, 0).is_some();
    for directive in ["POST_ADD"].into_iter().chain(BUILD_SCRIPTS) {
        let Some(value) = source.values.text(directive, 0) else { continue };
        let Some(name) = words(value).into_iter().next() else { continue };
        let path = source.dir.join(&name);
        if is_program(&path) {
            continue;
        }
        if path.is_file() {
            let place = Place { file: name.clone().into(), line: None };
            let problem = format!("not executable, so dkms skips {directive}");
            let remedy = format!("run: chmod +x {name}");
            findings.push(Finding::new(Severity::Error, place, problem, remedy));
        } else if directive != "POST_BUILD" || !is_set("PRE_BUILD") {
            // PRE_BUILD may create the POST_BUILD script.
            let problem = format!("{directive} names {name}, which does not exist");
            let remedy = "correct the name, or remove the directive";
            let place = source.at(directive, 0);
            findings.push(Finding::new(Severity::Error, place, problem, remedy));
        }
    }
    findings
}

/// Reports missing patches. The build fails for the kernels that need them.
pub(super) fn patches(source: &Source) -> Vec<Finding> {
    let patches = source.values.elements("PATCH").filter(|(_, name)| !name.is_empty());
    let missing = patches.filter(|(_, name)| !source.dir.join("patches").join(name).is_file());
    let finding = |(index, name): (usize, &str)| {
        let file = Path::new("patches").join(name);
        let problem = format!("PATCH[{index}] names {}, which does not exist", file.display());
        Finding::new(Severity::Error, source.at("PATCH", index), problem, "add the patch")
    };
    missing.map(finding).collect()
}

//! Rules about the directives of a dkms.conf: refused, unknown, unused and deprecated ones.

use super::conf_text::Assignment;
use super::source::Source;
use super::{Finding, Severity};
use crate::conf::directives::{self, ALL, OF_RECORDS};

/// The directives that are not arrays.
const SCALARS: [&str; 12] = [
    "PACKAGE_NAME",
    "PACKAGE_VERSION",
    "AUTOINSTALL",
    "NO_WEAK_MODULES",
    "BUILD_DEPENDS_REBUILD",
    "POST_ADD",
    "PRE_BUILD",
    "POST_BUILD",
    "PRE_INSTALL",
    "POST_INSTALL",
    "POST_REMOVE",
    "OBSOLETE_BY",
];

/// The directives whose elements apply to the BUILT_MODULE_NAME with the same index.
const FOR_RECORDS: [&str; 6] = [
    "STRIP",
    "BUILD_EXCLUSIVE_KERNEL",
    "BUILD_EXCLUSIVE_KERNEL_MIN",
    "BUILD_EXCLUSIVE_KERNEL_MAX",
    "BUILD_EXCLUSIVE_ARCH",
    "BUILD_EXCLUSIVE_CONFIG",
];

/// Prefixes that only directive names have.
const FAMILIES: [&str; 6] =
    ["BUILD_EXCLUSIVE_", "BUILT_MODULE_", "DEST_MODULE_", "BUILD_DEPENDS", "POST_", "PRE_"];

/// Reports the reasons why the engine refuses the dkms.conf, bash's messages about it, and a
/// dkms.conf that lists no objects.
pub(super) fn refused(source: &Source) -> Vec<Finding> {
    let see = "see: dkms.conf(5)";
    let refusals = source.refusals.iter().map(|problem| {
        let (name, index) = element(problem);
        let mut place = source.at(name, index);
        if place.line.is_none() && OF_RECORDS.contains(&name) {
            let others = OF_RECORDS.iter().map(|name| source.text.line_of(name, index));
            place.line = others.flatten().next();
        }
        Finding::new(Severity::Error, place, problem.clone(), see)
    });
    let complaints = source.complaints.iter().map(|message| {
        let (line, message) = line_and_message(message);
        let problem = format!("bash: {message}");
        Finding::new(Severity::Error, source.in_conf(line), problem, "see: bash -n dkms.conf")
    });
    let nothing = source.conf.as_ref().filter(|conf| conf.records.is_empty()).map(|_| {
        let problem = "no object is listed: make runs, but nothing is installed".to_owned();
        Finding::new(Severity::Warning, source.in_conf(None), problem, "set BUILT_MODULE_NAME[0]")
    });
    refusals.chain(complaints).chain(nothing).collect()
}

/// Reports variables that look like directives but are not. dkms ignores them.
pub(super) fn unknown(source: &Source) -> Vec<Finding> {
    let is_unknown = |it: &&Assignment| {
        !directives::is_known(&it.name)
            && it.name.chars().all(|c| !c.is_ascii_lowercase())
            && !source.text.refers_to(&it.name)
    };
    let unknown = source.text.assignments().iter().filter(is_unknown);
    let finding = |it: &Assignment| {
        let name = &it.name;
        let place = source.in_conf(Some(it.line));
        let problem = format!("{name} is not a directive");
        match nearest(name) {
            Some(meant) => {
                let remedy = format!("did you mean {meant}?");
                Some(Finding::new(Severity::Error, place, problem, remedy))
            }
            None if FAMILIES.iter().any(|family| name.starts_with(family)) => {
                Some(Finding::new(Severity::Warning, place, problem, "see: dkms.conf(5)"))
            }
            None => None,
        }
    };
    unknown.filter_map(finding).collect()
}

/// Returns the directive that is most similar to `name`, or `None` if all directives differ from it
/// by more than a few letters.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let near = ALL.into_iter().filter(|known| distance(known) <= 1 + known.len() / 8);
    near.min_by_key(|known| distance(known))
}

/// Reports array elements that have no effect, at least with dkms.
pub(super) fn unused(source: &Source) -> Vec<Finding> {
    let values = &source.values;
    let records = source.conf.as_ref().map(|conf| conf.records.len().max(1));
    let is_set = |name, index| values.text(name, index).is_some();
    let mut findings = Vec::new();
    for (name, index, text) in values.iter().filter(|(_, _, text)| !text.is_empty()) {
        let why = match name {
            _ if SCALARS.contains(&name) && index > 0 => "it is not an array".to_owned(),
            _ if FOR_RECORDS.contains(&name) && records.is_some_and(|count| index >= count) => {
                format!("there is no BUILT_MODULE_NAME[{index}]")
            }
            "MAKE" if index > 0 && !is_set("MAKE_MATCH", index) => {
                format!("MAKE_MATCH[{index}] is not set")
            }
            "MAKE_MATCH" if !is_set("MAKE", index) => format!("MAKE[{index}] is not set"),
            "PATCH_MATCH" if !is_set("PATCH", index) => format!("PATCH[{index}] is not set"),
            // dkms counts the elements that are set, and reads that many from index 0 on
            // (dkms-behaviour 3.3).
            "MAKE" | "PATCH" if index >= values.elements(name).count() => {
                "dkms reads no element after a gap".to_owned()
            }
            _ => continue,
        };
        let problem = format!("{name}[{index}]={text:?} has no effect: {why}");
        let place = source.at(name, index);
        findings.push(Finding::new(Severity::Warning, place, problem, "correct the index"));
    }
    findings
}

/// Reports deprecated directives.
pub(super) fn deprecated(source: &Source) -> Vec<Finding> {
    let finding = |name: &&'static str| {
        let (problem, remedy) = match *name {
            "OBSOLETE_BY" => (format!("{name} is deprecated"), "use BUILD_EXCLUSIVE_KERNEL_MAX"),
            name => (format!("{name} is deprecated and has no effect"), "remove it"),
        };
        Finding::new(Severity::Note, source.at(name, 0), problem, remedy)
    };
    source.deprecated.iter().map(finding).collect()
}

/// Reports that AUTOINSTALL is not set.
pub(super) fn no_autoinstall(source: &Source) -> Vec<Finding> {
    if source.values.get("AUTOINSTALL", 0).is_some() || source.conf.is_none() {
        return Vec::new();
    }
    let problem =
        "AUTOINSTALL is not set: most distributions do not build the module for new kernels";
    let remedy = "set AUTOINSTALL=\"yes\", or \"no\" if that is intended";
    vec![Finding::new(Severity::Warning, source.in_conf(None), problem.to_owned(), remedy)]
}

/// Returns the directive and the index at the start of a refusal by the engine, such as
/// `DEST_MODULE_NAME[1] is used by an earlier entry`.
fn element(problem: &str) -> (&str, usize) {
    let end = problem.find(|c: char| !c.is_ascii_uppercase() && c != '_');
    let (name, rest) = problem.split_at(end.unwrap_or(problem.len()));
    let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    (name, index.and_then(|(index, _)| index.parse().ok()).unwrap_or(0))
}

/// Splits a message of bash, `FILE: line N: MESSAGE`, into the number of the line and the message.
fn line_and_message(message: &str) -> (Option<usize>, &str) {
    let numbered = message.split_once(": line ").and_then(|(_, rest)| rest.split_once(": "));
    match numbered {
        Some((line, message)) => (line.parse().ok(), message),
        None => (None, message),
    }
}

//! Rules about PACKAGE_NAME and PACKAGE_VERSION, and the name of the source directory.

use super::source::Source;
use super::{Finding, Severity};
use crate::names::ModuleId;

/// Reports a name or version that is still a placeholder, such as `#MODULE_VERSION#` (Debian's
/// dh_dkms) or `@VERSION@`.
pub(super) fn placeholder(source: &Source) -> Vec<Finding> {
    let finding = |name| {
        let text = placeholder_in(source, name)?;
        let problem = format!("{name} is a placeholder: {text:?}");
        let remedy = "replace it when the source is packaged";
        Some(Finding::new(Severity::Error, source.at(name, 0), problem, remedy))
    };
    ["PACKAGE_NAME", "PACKAGE_VERSION"].into_iter().filter_map(finding).collect()
}

fn placeholder_in<'a>(source: &'a Source, name: &str) -> Option<&'a str> {
    let text = source.values.text(name, 0)?;
    let is_between = |mark| text.len() > 2 && text.starts_with(mark) && text.ends_with(mark);
    (is_between('#') || is_between('@')).then_some(text)
}

/// Reports a source to which programs give different names and versions.
///
/// `dkms add PATH` uses PACKAGE_NAME and PACKAGE_VERSION. The pacman hooks of dkms and alpm-dkms
/// split the directory name instead.
pub(super) fn split_by_dkms(source: &Source) -> Vec<Finding> {
    let text = |name| source.values.text(name, 0);
    let (Some(name), Some(version)) = (text("PACKAGE_NAME"), text("PACKAGE_VERSION")) else {
        return Vec::new();
    };
    if ["PACKAGE_NAME", "PACKAGE_VERSION"].iter().any(|it| placeholder_in(source, it).is_some()) {
        return Vec::new();
    }
    let by_conf = format!("{name}/{version}");
    let dir = source.dir.file_name().unwrap_or_default().to_string_lossy();
    let wanted = format!("{name}-{version}");
    if source.in_source_tree && dir != wanted {
        let by_hooks = match ModuleId::from_source_dir(&dir) {
            Ok(id) => format!("pacman hooks add {id}"),
            Err(_) => "pacman hooks ignore it".to_owned(),
        };
        let problem = format!("{by_conf} is in the directory {dir}: {by_hooks}");
        let remedy = format!("rename the directory to {wanted}");
        let place = source.at("PACKAGE_VERSION", 0);
        return vec![Finding::new(Severity::Warning, place, problem, remedy)];
    }
    match ModuleId::from_source_dir(&wanted) {
        Ok(id) if version.contains('-') => {
            let problem = format!("the version contains a dash: dkms's pacman hook adds {id}");
            let place = source.at("PACKAGE_VERSION", 0);
            let remedy = "use a dot or an underscore";
            vec![Finding::new(Severity::Warning, place, problem, remedy)]
        }
        _ => Vec::new(),
    }
}

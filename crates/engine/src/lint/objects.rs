//! A rule about objects that kbuild does not build.

use std::path::Path;

use super::makefile::Makefile;
use super::source::Source;
use super::{Finding, Severity};

/// Reports a BUILT_MODULE_NAME that the Makefile of its directory does not list.
///
/// Does so only if the Makefile names all of its objects literally, and if nothing else can
/// change the Makefile or produce the object: there is no PRE_BUILD and no patch, and nothing
/// mentions `NAME.ko`.
pub(super) fn not_in_makefile(source: &Source) -> Vec<Finding> {
    let Some(conf) = &source.conf else { return Vec::new() };
    if source.is_changed_before_make() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, record) in conf.records.iter().enumerate() {
        let name = &record.built_name;
        let file = format!("{name}.ko");
        let Ok(dir) = record.built_location.strip_prefix(crate::conf::BUILD) else { continue };
        let Some(kbuild) = Makefile::of_kbuild(source, dir) else { continue };
        let top = Makefile::of_make(source, Path::new(""));
        let makes = source.values.elements("MAKE").any(|(_, text)| text.contains(&file));
        let mut files = [Some(&kbuild), top.as_ref()].into_iter().flatten();
        if makes || files.any(|makefile| makefile.texts().any(|line| line.contains(&file))) {
            continue;
        }
        let Some(objects) = objects(&kbuild) else { continue };
        if objects.iter().any(|object| object == name) {
            continue;
        }
        let listed = kbuild.path.display();
        let problem = format!("{listed} does not list {name}.o, so make does not build {file}");
        let same = |object: &&String| object.replace('-', "_") == name.replace('-', "_");
        let remedy = match objects.iter().find(same).or((objects.len() == 1).then(|| &objects[0])) {
            Some(object) => format!("set BUILT_MODULE_NAME[{index}] to {object}"),
            None => "correct BUILT_MODULE_NAME or BUILT_MODULE_LOCATION".to_owned(),
        };
        let place = source.at("BUILT_MODULE_NAME", index);
        findings.push(Finding::new(Severity::Error, place, problem, remedy));
    }
    findings
}

/// Returns the names of the objects that kbuild builds as modules, without `.o`. Returns `None` if
/// the Makefile computes or includes some of them, or lists no objects.
fn objects(kbuild: &Makefile) -> Option<Vec<String>> {
    let includes = |line: &str| {
        let word = line.split_whitespace().next();
        matches!(word, Some("include" | "-include" | "sinclude"))
    };
    if kbuild.texts().any(includes) {
        return None;
    }
    let mut objects = Vec::new();
    for (_, value) in kbuild.variables("obj-") {
        for word in value.split_whitespace() {
            let object = word.strip_suffix(".o").filter(|object| !object.contains('$'))?;
            objects.push(object.to_owned());
        }
    }
    (!objects.is_empty()).then_some(objects)
}

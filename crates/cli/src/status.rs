//! `dkms status`: what is added, built and installed, in dkms's lines or as JSON.
//!
//! Takes no lock and needs no rights: it is polled by programs and typed by anybody.

use std::fmt;
use std::io::Write;

use dkms_engine::digest::Digest;
use dkms_engine::kernels::Kernels;
use dkms_engine::names::{Arch, KernelRelease, ModuleId};
use dkms_engine::object::ObjectName;
use dkms_engine::record::{Failure, Placed, Record};
use dkms_engine::site::Site;
use dkms_engine::state::{Added, BuiltFor, State};
use serde::Serialize;

use crate::glob;
use crate::wanted::Filter;

/// What a line says of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Added,
    Broken,
    Built,
    Installed,
    /// Only in JSON: dkms has no word for it, its lines say "added".
    Failed,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    module: String,
    version: String,
    kernel: Option<KernelRelease>,
    arch: Option<Arch>,
    state: Word,
    /// Objects of the kernel's own were moved away by dkms.
    original_modules: bool,
    /// Built objects are gone from the dkms tree.
    missing: bool,
    /// What is placed is not what was built.
    differs: bool,
    /// What the last build said, if it failed.
    failure: Option<String>,
}

/// Writes the status to `out`, and complaints about broken modules to `errors`.
pub fn print(
    site: &Site,
    filter: &Filter,
    json: bool,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) {
    let state = State::read(&site.trees);
    for problem in &state.problems {
        let _ = writeln!(errors, "dkms: {problem}");
    }
    let rows = rows(site, &state, filter);
    for row in rows.iter().filter(|row| row.state == Word::Broken) {
        let _ = writeln!(
            errors,
            "dkms: {}/{}: its source is gone; bring it back, or delete its directory in {}",
            row.module,
            row.version,
            site.trees.dkms.display()
        );
    }
    let text = if json {
        let mut rows = rows;
        rows.extend(failures(site, &state, filter));
        serde_json::to_string_pretty(&rows).map(|text| text + "\n").unwrap_or_default()
    } else {
        rows.iter().map(|row| format!("{row}\n")).collect()
    };
    // Somebody who has seen enough (`dkms status | head -1`) is no error.
    let _ = out.write_all(text.as_bytes());
}

/// The lines, in dkms's order: the whole list once for each kernel that was named.
fn rows(site: &Site, state: &State, filter: &Filter) -> Vec<Row> {
    let modules: Vec<&Added> =
        state.modules.iter().filter(|added| listed(&added.id, filter)).collect();
    let any = [(None, filter.arch.as_deref())];
    let named: Vec<_> = filter
        .kernels
        .iter()
        .map(|(kernel, arch)| (Some(kernel.as_str()), arch.as_deref()))
        .collect();
    let passes = if named.is_empty() { &any[..] } else { &named };
    let mut rows = Vec::new();
    for (kernel, arch) in passes {
        for added in &modules {
            rows.extend(of_module(site, added, *kernel, *arch));
        }
    }
    rows
}

fn listed(id: &ModuleId, filter: &Filter) -> bool {
    let fits = |pattern: &Option<String>, text: &str| {
        pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, text))
    };
    fits(&filter.module, id.name.as_str()) && fits(&filter.version, id.version.as_str())
}

fn of_module(site: &Site, added: &Added, kernel: Option<&str>, arch: Option<&str>) -> Vec<Row> {
    if added.is_broken() {
        return vec![row(&added.id, Word::Broken)];
    }
    if !added.is_added() {
        return Vec::new();
    }
    let wanted = |it: &&BuiltFor| it.has_module_dir && of_kernel(it, kernel) && of_arch(it, arch);
    let built = added.kernels.iter().filter(wanted);
    let rows: Vec<_> = built.map(|built| of_kernel_row(site, &added.id, built)).collect();
    if rows.is_empty() { vec![row(&added.id, Word::Added)] } else { rows }
}

fn of_kernel(built: &BuiltFor, pattern: Option<&str>) -> bool {
    let release = built.kernel.as_str();
    match pattern {
        Some(pattern) => glob::matches(pattern, release),
        // dkms takes no other directory for a kernel unless it is named.
        None => release.starts_with(|c: char| c.is_ascii_digit()) && release.contains('.'),
    }
}

fn of_arch(built: &BuiltFor, pattern: Option<&str>) -> bool {
    pattern.is_none_or(|pattern| glob::matches(pattern, built.arch.as_str()))
}

fn row(id: &ModuleId, state: Word) -> Row {
    Row {
        module: id.name.to_string(),
        version: id.version.to_string(),
        kernel: None,
        arch: None,
        state,
        original_modules: false,
        missing: false,
        differs: false,
        failure: None,
    }
}

fn of_kernel_row(site: &Site, id: &ModuleId, built: &BuiltFor) -> Row {
    let trees = &site.trees;
    let dir = trees.built(id, &built.kernel, &built.arch);
    let record = Record::read(&Record::path(trees, id, &built.kernel, &built.arch));
    let objects = record.map_or_else(
        || unrecorded(&dir),
        |record| record.objects.iter().map(dkms_engine::record::Object::in_place).collect(),
    );
    let name = |object: &Placed| object.path.rsplit('/').next().unwrap_or_default().to_owned();
    let missing = objects.iter().any(|object| !dir.join("module").join(name(object)).exists());
    let in_kernel = trees.kernel(&built.kernel);
    let in_place = |object: &Placed| {
        Digest::of_file(&in_kernel.join(&object.path)).is_ok_and(|now| now == object.digest)
    };
    Row {
        kernel: Some(built.kernel.clone()),
        arch: Some(built.arch.clone()),
        original_modules: trees.originals(&id.name, &built.kernel, &built.arch).is_dir(),
        missing,
        differs: !missing && built.installed && !objects.iter().all(in_place),
        ..row(id, if built.installed { Word::Installed } else { Word::Built })
    }
}

/// What dkms built: the objects that are there, where dkms puts them on Arch and Debian.
fn unrecorded(dir: &std::path::Path) -> Vec<Placed> {
    let entries = dir.join("module").read_dir().into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            ObjectName::parse(&name)?;
            let digest = Digest::of_file(&entry.path()).ok()?;
            Some(Placed { path: format!("updates/dkms/{name}"), digest })
        })
        .collect()
}

/// The failures that are remembered, for modules and kernels that the filter wants.
fn failures(site: &Site, state: &State, filter: &Filter) -> Vec<Row> {
    let kernels = Kernels::read(&site.trees).unwrap_or_default();
    let wanted = |kernel: &KernelRelease| {
        filter.kernels.is_empty()
            || filter.kernels.iter().any(|(pattern, _)| glob::matches(pattern, kernel.as_str()))
    };
    let mut rows = Vec::new();
    for added in state.modules.iter().filter(|added| listed(&added.id, filter)) {
        for kernel in kernels.all.iter().map(|kernel| &kernel.release).filter(|it| wanted(it)) {
            let path = Failure::path(&site.trees, &added.id, kernel, &site.arch);
            rows.extend(Failure::read(&path).map(|failure| Row {
                kernel: Some(kernel.clone()),
                arch: Some(site.arch.clone()),
                failure: Some(failure.what),
                ..row(&added.id, Word::Failed)
            }));
        }
    }
    rows
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.module, self.version)?;
        if let (Some(kernel), Some(arch)) = (&self.kernel, &self.arch) {
            write!(f, ", {kernel}, {arch}")?;
        }
        f.write_str(match self.state {
            Word::Added => ": added",
            Word::Broken => ": broken",
            Word::Built => ": built",
            Word::Installed => ": installed",
            Word::Failed => ": failed",
        })?;
        if self.original_modules {
            f.write_str(" (Original modules exist)")?;
        }
        if self.missing {
            f.write_str(" (Built modules are missing in the kernel modules folder)")?;
        }
        if self.differs {
            f.write_str(" (Differences between built and installed modules)")?;
        }
        Ok(())
    }
}

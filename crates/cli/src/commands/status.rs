//! `dkms status`: lists modules and their build state, in dkms's format or as JSON.
//!
//! The command takes no lock and needs no rights, because programs poll it and any user may run it.

use dkms_engine::dkms_tree::{KnownFailure, TreeState};
use dkms_engine::machine::{Kernels, Machine, Placement};
use dkms_engine::names::{Arch, KernelRelease, ModuleName, ModuleVersion};
use dkms_engine::status::{self, Filter, Line, Pattern};
use serde::Serialize;

use crate::output::console::Console;

/// An entry of the JSON list: a status line, or a remembered failure. dkms's line format cannot
/// express a failure, and shows the module as "added".
#[derive(Serialize)]
#[serde(untagged)]
enum StatusEntry {
    Line(Line),
    Failed {
        state: &'static str,
        module: ModuleName,
        version: ModuleVersion,
        kernel: KernelRelease,
        arch: Arch,
        /// The error, in one line.
        failure: String,
        /// The path of the build log.
        log: std::path::PathBuf,
    },
}

/// Prints the status, and warnings about broken modules. Returns the exit code.
pub fn run(machine: &Machine, filter: &Filter, json: bool, console: &Console) -> u8 {
    if console.is_quiet() {
        return 0;
    }
    let state = TreeState::read(&machine.trees);
    let placement = machine.placement().unwrap_or(Placement::FromConf);
    let lines = status::lines(&machine.trees, &state, &placement, filter);
    let advice = lines.iter().filter_map(|line| line.advice(&machine.trees));
    for warning in state.problems.iter().cloned().chain(advice) {
        console.warn(&warning);
    }
    let text = if json {
        let mut entries: Vec<StatusEntry> = lines.into_iter().map(StatusEntry::Line).collect();
        entries.extend(failures(machine, &state, filter));
        serde_json::to_string_pretty(&entries).map(|text| text + "\n").unwrap_or_default()
    } else {
        lines.iter().map(|line| format!("{line}\n")).collect()
    };
    console.print(&text);
    0
}

/// Returns the remembered failures of the modules and kernels that `filter` selects.
fn failures(machine: &Machine, state: &TreeState, filter: &Filter) -> Vec<StatusEntry> {
    let kernels = Kernels::read(&machine.trees).unwrap_or_default();
    let fits = |pattern: &Option<Pattern>, text: &str| {
        pattern.as_ref().is_none_or(|pattern| pattern.matches(text))
    };
    let wanted = |kernel: &&KernelRelease| {
        let mut named = filter.kernels.iter();
        filter.kernels.is_empty() || named.any(|named| fits(&named.kernel, kernel.as_str()))
    };
    let modules = state.modules.iter().map(|added| &added.id).filter(|id| {
        fits(&filter.module, id.name.as_str()) && fits(&filter.version, id.version.as_str())
    });
    let mut entries = Vec::new();
    for id in modules {
        for kernel in kernels.all.iter().map(|kernel| &kernel.release).filter(wanted) {
            let path = KnownFailure::path(&machine.trees, id, kernel, &machine.arch);
            entries.extend(KnownFailure::read(&path).map(|failure| StatusEntry::Failed {
                state: "failed",
                module: id.name.clone(),
                version: id.version.clone(),
                kernel: kernel.clone(),
                arch: machine.arch.clone(),
                failure: failure.what,
                log: failure.log,
            }));
        }
    }
    entries
}

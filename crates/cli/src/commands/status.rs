//! `dkms status`: lists modules and their build state, in dkms's format or as JSON.
//!
//! The command takes no lock and needs no rights, because programs poll it and any user may run it.
//! On a terminal, it also finds out why modules are not installed.

use dkms_engine::dkms_tree::{Attempts, KnownFailure, PendingList, PendingWork, TreeState};
use dkms_engine::explain::{Explanation, explain_all};
use dkms_engine::facts::running_pacman;
use dkms_engine::machine::{Kernels, Machine, Placement};
use dkms_engine::names::{Arch, KernelRelease, ModuleId, ModuleName, ModuleVersion};
use dkms_engine::status::{self, Filter, Line, Pattern};
use dkms_initramfs::{Generator, ImageReport, has_pending_images, stale_images};
use preflight::expected;
use serde::Serialize;

use crate::output::console::Console;
use crate::output::status_lines::for_terminal;

/// An entry of the JSON list: a status line, a remembered failure, a pending installation, or a
/// stale image. dkms's line format cannot express a pending installation, and shows its module as
/// "added".
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
    Pending {
        /// "pending", or "parked" if the hooks and the boot unit no longer retry it.
        state: &'static str,
        module: ModuleName,
        version: ModuleVersion,
        kernel: KernelRelease,
        arch: Arch,
        /// The number of attempts that have not succeeded.
        attempts: u32,
        /// The error of the last attempt, in one line.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
        /// The path of the build log of the last attempt.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<std::path::PathBuf>,
    },
    /// A stale image of a kernel whose modules have changed.
    Image {
        state: &'static str,
        #[serde(flatten)]
        image: ImageReport,
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
    let mut advice: Vec<String> = advice.collect();
    // While pacman replaces a package, the package's source is missing.
    if let Some(process) = running_pacman(machine).filter(|_| !advice.is_empty()) {
        advice = vec![format!("sources are missing while pacman is running (process {process})")];
    }
    if filter.module.is_none() && filter.kernels.is_empty() {
        let losses = expected::read(&machine.trees);
        advice.extend((!losses.is_empty()).then(|| expected::message(&losses)));
    }
    for warning in state.problems.iter().cloned().chain(advice) {
        console.warn(&warning);
    }
    let text = if json {
        let mut entries: Vec<StatusEntry> = lines.into_iter().map(StatusEntry::Line).collect();
        entries.extend(failures(machine, &state, filter));
        entries.extend(pending(machine, filter));
        entries.extend(images(machine, filter));
        serde_json::to_string_pretty(&entries).map(|text| text + "\n").unwrap_or_default()
    } else if console.is_terminal() {
        let shown = |it: &Explanation| selects(filter, &it.id(), &it.kernel);
        let explanations: Vec<_> =
            explain_all(machine).unwrap_or_default().into_iter().filter(shown).collect();
        for_terminal(&lines, &explanations, console.has_colours())
    } else {
        lines.iter().map(|line| format!("{line}\n")).collect()
    };
    console.print(&text);
    0
}

/// Returns the remembered failures of the modules and kernels that `filter` selects.
fn failures(machine: &Machine, state: &TreeState, filter: &Filter) -> Vec<StatusEntry> {
    let kernels = Kernels::read(&machine.trees).unwrap_or_default();
    let mut entries = Vec::new();
    for id in state.modules.iter().map(|added| &added.id) {
        let releases = kernels.all.iter().map(|kernel| &kernel.release);
        for kernel in releases.filter(|kernel| selects(filter, id, kernel)) {
            let path = KnownFailure::path(&machine.trees, id, kernel, &machine.arch);
            let failure = KnownFailure::read(&path).filter(|failure| !failure.transient);
            entries.extend(failure.map(|failure| StatusEntry::Failed {
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

/// Returns the pending installations of the modules and kernels that `filter` selects.
fn pending(machine: &Machine, filter: &Filter) -> Vec<StatusEntry> {
    let list = PendingList::of(&machine.trees);
    let attempts = list.attempts();
    let mut entries = Vec::new();
    for work in list.read() {
        let PendingWork::Install { module: id, kernel } = &work else { continue };
        if !selects(filter, id, kernel) {
            continue;
        }
        let path = KnownFailure::path(&machine.trees, id, kernel, &machine.arch);
        let failure = KnownFailure::read(&path);
        let tried = attempts.get(&work);
        entries.push(StatusEntry::Pending {
            state: if tried.is_some_and(Attempts::are_used_up) { "parked" } else { "pending" },
            module: id.name.clone(),
            version: id.version.clone(),
            kernel: kernel.clone(),
            arch: machine.arch.clone(),
            attempts: tried.map_or(0, |tried| tried.count),
            failure: failure.as_ref().map(|failure| failure.what.clone()),
            log: failure.map(|failure| failure.log),
        });
    }
    entries
}

/// Returns the stale images. Returns an empty list if `filter` selects modules or kernels. Reads no
/// image if none is pending.
fn images(machine: &Machine, filter: &Filter) -> Vec<StatusEntry> {
    if filter.module.is_some() || !filter.kernels.is_empty() {
        return Vec::new();
    }
    let generator = has_pending_images(machine).then(|| Generator::detect(machine)).flatten();
    let images = generator.iter().flat_map(|generator| stale_images(machine, generator));
    images.map(|image| StatusEntry::Image { state: "stale", image }).collect()
}

/// Returns true if `filter` selects a module for a kernel.
fn selects(filter: &Filter, id: &ModuleId, kernel: &KernelRelease) -> bool {
    let fits = |pattern: &Option<Pattern>, text: &str| {
        pattern.as_ref().is_none_or(|pattern| pattern.matches(text))
    };
    let mut kernels = filter.kernels.iter();
    fits(&filter.module, id.name.as_str())
        && fits(&filter.version, id.version.as_str())
        && (filter.kernels.is_empty() || kernels.any(|named| fits(&named.kernel, kernel.as_str())))
}

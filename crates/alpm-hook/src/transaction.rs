//! What the hooks do in a transaction: note what is about to change, then bring the machine in
//! line with what did.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::ExitCode;

use dkms_engine::act;
use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::facts::{self, Facts, Scope};
use dkms_engine::machine::Machine;
use dkms_engine::machine::lock::Lock;
use dkms_engine::names::KernelRelease;
use dkms_engine::plan::{self, Note, Plan, Request};
use dkms_initramfs::generators::Generator;
use dkms_initramfs::mkinitcpio_override;

use crate::hook_main::{Call, Failure};
use crate::images;
use crate::lines::{Lines, Names};
use crate::package_query::{self, Packages, Questions};
use crate::targets::Change;

/// Before a transaction: notes its sources and kernels as debts, so that they are looked at even
/// if no Post hook ever runs. Takes no lock: a running build must not keep pacman waiting here,
/// and the transaction is one file of its own.
///
/// # Errors
/// If a work cannot be written.
pub fn journal(call: &Call, change: &Change) -> Result<ExitCode, Failure> {
    let kernels = &change.kernels | &change.headers;
    if change.sources.is_empty() && kernels.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let work = PendingWork::Transaction { sources: change.sources.clone(), kernels };
    if call.dry_run {
        Lines::new(io::stdout(), Names::default()).say(&format!("would note {work:?}"));
    } else {
        PendingList::of(&Machine::for_hook(&call.root).trees).write(&work)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// After a transaction: builds and installs what is missing, removes what is gone, and pays what
/// is owed. All of that can be said of a target only by looking at the disk, so the hooks for
/// arrivals and for removals do the same.
///
/// # Errors
/// If the lock cannot be taken, or the request is refused as a whole. A module that fails is no
/// error: it is told in the lines and in the exit code.
pub fn sync(call: &Call, change: &Change) -> Result<ExitCode, Failure> {
    let mut machine = Machine::for_hook(&call.root);
    machine.images = Generator::of(&machine).is_some();
    let (present, _) = facts::source_dirs(&machine.trees);
    if present.is_empty() && !machine.trees.dkms.exists() {
        return Ok(ExitCode::SUCCESS); // a machine without modules
    }
    let _lock = lock(call, &machine)?;
    // When we arrive ourselves, everything that is there is new to us.
    let arrived = if change.ourselves { present.clone() } else { BTreeSet::new() };
    let sources = &change.sources | &arrived;
    let kernels = &change.kernels | &change.headers;
    let kernels_in_depth = in_depth(&machine, &sources, &kernels);
    let scope = Scope { kernels: kernels_in_depth, trusts_packages: true, ..Scope::default() };
    let mut facts = facts::read(&machine, &scope);
    let request = Request::Sync { sources, kernels };
    let mut plan = plan::make(&request, &facts)?;
    let mut names = Names::default();
    if packages_matter(&plan, &facts, change) {
        let packages = packages(&machine, &present, &facts);
        facts.name_copies(packages.unowned());
        plan = plan::make(&request, &facts)?;
        names = Names::new(packages, &facts);
    }
    let code = carry_out(call, &plan, &facts, &machine, names);
    if !call.dry_run {
        images::note_ahead(&machine)?;
    }
    Ok(code)
}

/// Whether it matters which packages are behind the trees: something is going to be done, and
/// told by name, or a kernel was touched that may be a copy from now on. To ask alpm-query takes
/// longer than all the rest of a hook that has nothing to do.
fn packages_matter(plan: &Plan, facts: &Facts, change: &Change) -> bool {
    let names_one = |note: &Note| matches!(note, Note::NoHeaders { .. });
    // What the journal noted of this very transaction tells nothing new.
    let known = |work: &PendingWork| {
        matches!(work, PendingWork::Transaction { sources, kernels }
            if *sources == change.sources && *kernels == change.headers)
    };
    !plan.is_empty()
        || plan.notes.iter().any(names_one)
        || !change.kernels.is_empty()
        || !facts.pending.iter().all(known)
}

/// Before a transaction that removes our own package (`pacman -Rs` of the last module takes us
/// along): removes what the transaction takes away, since no Post hook of ours will. If another
/// package brings its own `dkms`, only what is ours goes, and it goes on with the tree. Does
/// nothing in any other transaction.
///
/// # Errors
/// If the lock cannot be taken.
pub fn depart(call: &Call, change: &Change) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&call.root);
    if change.ourselves && !call.dry_run {
        mkinitcpio_override::leave(&call.root)?;
    }
    if !change.ourselves || !machine.trees.dkms.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    let lock = lock(call, &machine)?;
    let facts = facts::read(&machine, &Scope { shallow: true, ..Scope::default() });
    let request = Request::Depart {
        sources: change.sources.clone(),
        kernels: change.kernels.clone(),
        swap: change.dkms_binary,
    };
    let plan = plan::make(&request, &facts)?;
    let code = carry_out(call, &plan, &facts, &machine, Names::default());
    drop(lock);
    // Ours is gone; the tree itself goes too if nothing else is in it.
    let _ = fs::remove_dir(&machine.trees.dkms);
    Ok(code)
}

/// The kernels to be looked at in depth: where only kernels changed, these and those that
/// something is owed for; where a source changed, all.
fn in_depth(
    machine: &Machine,
    sources: &BTreeSet<String>,
    kernels: &BTreeSet<KernelRelease>,
) -> Option<BTreeSet<KernelRelease>> {
    let mut in_depth = kernels.clone();
    for work in PendingList::of(&machine.trees).read() {
        match work {
            PendingWork::Kernel(kernel)
            | PendingWork::Install { kernel, .. }
            | PendingWork::Uninstall { kernel, .. } => in_depth.insert(kernel),
            PendingWork::LeftOver(_) | PendingWork::Image { .. } => false,
            PendingWork::Transaction { sources, kernels } if sources.is_empty() => {
                in_depth.extend(kernels);
                true
            }
            PendingWork::Source(_) | PendingWork::Transaction { .. } | PendingWork::Remove(_) => {
                return None;
            }
        };
    }
    sources.is_empty().then_some(in_depth)
}

/// Takes the lock, unless nothing is going to be changed.
pub(crate) fn lock(call: &Call, machine: &Machine) -> Result<Option<Lock>, Failure> {
    if call.dry_run {
        return Ok(None);
    }
    let mut lines = Lines::new(io::stdout(), Names::default());
    Ok(Some(Lock::take(&machine.trees, &machine.env, &mut |text| lines.say(text))?))
}

/// Carries a plan out, or tells it if this is a dry run.
fn carry_out(call: &Call, plan: &Plan, facts: &Facts, machine: &Machine, names: Names) -> ExitCode {
    let mut lines = Lines::new(io::stdout(), names);
    if call.dry_run {
        lines.dry_run(plan);
        return ExitCode::SUCCESS;
    }
    if let Err(why) = machine.tools.stop.listen() {
        lines.say(&format!("Trouble: Ctrl-C ends this at once, tidily or not: {why}"));
    }
    let report = act::carry_out(plan, facts, machine, &mut lines);
    lines.summary(plan, &report);
    match &report.interrupted {
        Some(interruption) => ExitCode::from(interruption.exit_code()),
        None if report.is_clean() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// Asks for the packages behind all sources and kernels; if there is no answer, says so once and
/// goes on without names.
fn packages(machine: &Machine, sources: &BTreeSet<String>, facts: &Facts) -> Packages {
    let alive = facts.kernels.iter().filter(|(_, about)| about.kernel.alive);
    let questions = Questions {
        sources: sources.clone(),
        kernels: alive.map(|(release, _)| release.clone()).collect(),
    };
    let answer = package_query::beside_us()
        .map_err(package_query::NoAnswer::from)
        .and_then(|program| package_query::ask(&program, &machine.trees.root, &questions));
    answer.unwrap_or_else(|why| {
        let line = format!("Packages cannot be named this time ({why}); the rest goes on.");
        Lines::new(io::stdout(), Names::default()).say(&line);
        Packages::default()
    })
}

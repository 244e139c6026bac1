//! The hooks around a transaction: journal what is about to change, then build, install and remove modules accordingly.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::ExitCode;

use dkms_engine::act;
use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::facts::{self, Facts, Scope};
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::KernelRelease;
use dkms_engine::plan::{self, Note, Plan, Request};
use dkms_initramfs::{Generator, mkinitcpio_override};

use crate::hook_main::HookArgs;
use crate::images;
use crate::lines::{Lines, PackageNames};
use crate::lock::lock;
use crate::package_query::{self, PackageQuery, Packages};
use crate::targets::Targets;

/// Before a transaction: journals its sources and kernels as pending work, so that they are looked at even if no Post hook
/// runs. Takes no lock: a running build must not make pacman wait here, and each transaction has its own file.
///
/// # Errors
/// If the file cannot be written.
pub fn journal(args: &HookArgs, targets: &Targets) -> Result<ExitCode, Failure> {
    let kernels = &targets.kernels | &targets.headers;
    if targets.sources.is_empty() && kernels.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        let (sources, kernels) = (targets.sources.len(), kernels.len());
        let line = format!("would record {sources} sources and {kernels} kernels as pending");
        Lines::new(io::stdout(), PackageNames::default()).say(&line);
    } else {
        let work = PendingWork::Transaction { sources: targets.sources.clone(), kernels };
        PendingList::of(&Machine::for_hook(&args.root).trees).write(&work)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// After a transaction: builds and installs missing modules, removes those that are gone, and finishes pending work. Only
/// the disk tells which of these a target needs, so the hooks for arrivals and for removals do the same.
///
/// # Errors
/// If the lock cannot be taken or the request is refused as a whole. A module that fails is not an error; it shows in the
/// lines and in the exit code.
pub fn sync(args: &HookArgs, targets: &Targets) -> Result<ExitCode, Failure> {
    let mut machine = Machine::for_hook(&args.root);
    let (present, _) = facts::source_dirs(&machine.trees);
    if present.is_empty() && !machine.trees.dkms.exists() {
        return Ok(ExitCode::SUCCESS); // a machine without modules
    }
    let generator = Generator::detect(&machine);
    machine.images = generator.is_some();
    let _lock = lock(args, &machine)?;
    // When alpm-dkms itself is installed, every source is new to it.
    let arrived = if targets.ourselves { present.clone() } else { BTreeSet::new() };
    let sources = &targets.sources | &arrived;
    let kernels = &targets.kernels | &targets.headers;
    let kernels_in_depth = in_depth(&machine, &sources, &kernels);
    let scope = Scope { kernels: kernels_in_depth, trusts_packages: true, ..Scope::default() };
    let mut facts = facts::read(&machine, &scope);
    let request = Request::Sync { sources, kernels };
    // Looking up packages takes longer than all the rest of a hook with nothing to do.
    let mut packages = None;
    if plan_depends_on_owners(&facts, targets) {
        let found = look_up_packages(&machine, &present, &facts);
        facts.name_copies(found.unowned());
        packages = Some(found);
    }
    let plan = plan::make(&request, &facts)?;
    if packages.is_none() && output_names_packages(&plan) {
        packages = Some(look_up_packages(&machine, &present, &facts));
    }
    let names = PackageNames::new(packages.unwrap_or_default(), &facts);
    let code = carry_out(args, &plan, &facts, &machine, names);
    if !args.dry_run {
        images::snapshot_early(&machine, generator.as_ref())?;
    }
    Ok(code)
}

/// Returns true if a kernel may be a copy that no package owns and that is kept until the next boot, which changes the
/// plan: a kernel was touched now or by pending work, or two kernels are from one package, which owns only one of them.
fn plan_depends_on_owners(facts: &Facts, targets: &Targets) -> bool {
    let is_pending = |work: &PendingWork| match work {
        PendingWork::Kernel(_) | PendingWork::LeftOver(_) => true,
        // The journal of this transaction says nothing new.
        PendingWork::Transaction { kernels, .. } => !kernels.is_subset(&targets.headers),
        _ => false,
    };
    let alive = facts.kernels.values().filter(|about| about.kernel.alive);
    let mut packages = BTreeSet::new();
    let mut share_a_package =
        alive.filter_map(|about| about.kernel.pkgbase.as_ref()).filter(|it| !packages.insert(*it));
    targets.ourselves
        || !targets.kernels.is_empty()
        || facts.pending.iter().any(is_pending)
        || share_a_package.next().is_some()
}

/// Returns true if the output about a plan contains names of packages.
fn output_names_packages(plan: &Plan) -> bool {
    let names_one = |note: &Note| matches!(note, Note::NoHeaders { .. });
    !plan.is_empty() || plan.notes.iter().any(names_one)
}

/// Before a transaction that removes alpm-dkms (`pacman -Rs` of the last module does): removes what the transaction takes
/// away, because no Post hook of ours will. If another package provides `dkms`, only our own files are removed. Does
/// nothing in any other transaction.
///
/// # Errors
/// If the lock cannot be taken.
pub fn depart(args: &HookArgs, targets: &Targets) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    if targets.ourselves && !args.dry_run {
        mkinitcpio_override::remove(&args.root)?;
    }
    if !targets.ourselves || !machine.trees.dkms.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    let lock = lock(args, &machine)?;
    let facts = facts::read(&machine, &Scope { shallow: true, ..Scope::default() });
    let request = Request::Depart {
        sources: targets.sources.clone(),
        kernels: targets.kernels.clone(),
        swap: targets.dkms_binary,
    };
    let plan = plan::make(&request, &facts)?;
    let code = carry_out(args, &plan, &facts, &machine, PackageNames::default());
    drop(lock);
    // Fails if the tree is not empty.
    let _ = fs::remove_dir(&machine.trees.dkms);
    Ok(code)
}

/// Returns the kernels to look at in depth: if only kernels changed, these and the kernels with pending work; if a source
/// changed, all (`None`).
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

/// Carries out a plan, or prints it in a dry run.
fn carry_out(
    args: &HookArgs,
    plan: &Plan,
    facts: &Facts,
    machine: &Machine,
    names: PackageNames,
) -> ExitCode {
    let mut lines = Lines::new(io::stdout(), names);
    if args.dry_run {
        lines.dry_run(plan);
        return ExitCode::SUCCESS;
    }
    if let Err(why) = machine.tools.stop.listen() {
        lines.say(&format!(
            "warning: cannot handle signals: {why}; Ctrl-C may leave work unfinished"
        ));
    }
    let report = act::carry_out(plan, facts, machine, &mut lines);
    lines.summary(plan, &report);
    match &report.interrupted {
        Some(interruption) => ExitCode::from(interruption.exit_code()),
        None if report.is_clean() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// Looks up the packages of all sources and kernels. On failure it prints a warning and returns no names.
fn look_up_packages(machine: &Machine, sources: &BTreeSet<String>, facts: &Facts) -> Packages {
    let alive = facts.kernels.iter().filter(|(_, about)| about.kernel.alive);
    let query = PackageQuery {
        sources: sources.clone(),
        kernels: alive.map(|(release, _)| release.clone()).collect(),
    };
    let answer = package_query::beside_us()
        .map_err(package_query::QueryError::from)
        .and_then(|program| package_query::ask(&program, &machine.trees.root, &query));
    answer.unwrap_or_else(|why| {
        let line = format!("warning: cannot look up package names: {why}; continuing without them");
        Lines::new(io::stdout(), PackageNames::default()).say(&line);
        Packages::default()
    })
}

//! The module hooks. Before a transaction, the hooks record its changes as pending work. After the
//! transaction, they build, install and remove modules.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::ExitCode;

use dkms_engine::act;
use dkms_engine::dkms_tree::{Operation, PendingList, PendingWork, record_in_journal};
use dkms_engine::facts::{self, Facts, OwnTransaction, Scope, Subjects};
use dkms_engine::failure::Failure;
use dkms_engine::machine::{Machine, Transaction};
use dkms_engine::plan::{self, Note, Plan, Request};
use dkms_engine::report::Report;
use dkms_initramfs::{Generator, mkinitcpio_override};

use crate::hook_main::HookArgs;
use crate::images;
use crate::lines::{Lines, PackageNames, warn_of_settings};
use crate::lock::lock;
use crate::package_query::{self, PackageQuery, Packages};
use crate::targets::Targets;
use crate::told::{InstallHook, Told};

/// Records the paths of the targets in the journal before the transaction starts.
///
/// If the transaction is interrupted, no PostTransaction hook runs, but the journal remains. Takes
/// no lock, so that pacman never waits here for a running build. No lock is needed, because each
/// transaction writes its own files.
///
/// # Errors
/// [`Failure`] if the journal cannot be written.
pub fn journal(
    args: &HookArgs,
    targets: &Targets,
    operation: Operation,
) -> Result<ExitCode, Failure> {
    if targets.paths.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        let line = format!("would record {} {} paths", targets.paths.len(), operation.name());
        Lines::new(io::stdout(), PackageNames::default()).say(&line);
        return Ok(ExitCode::SUCCESS);
    }
    let machine = Machine::for_hook(&args.root);
    let trees = &machine.trees;
    let transaction = Transaction::of_this_hook(trees);
    record_in_journal(trees, &transaction, operation, targets.paths.iter().cloned())?;
    images::note_existing(&machine)?;
    Ok(ExitCode::SUCCESS)
}

/// The hook that calls [`sync`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncHook {
    /// 70-dkms-install. Its targets have been installed or replaced.
    Install,
    /// 71-dkms-remove, which runs after 70-dkms-install if both are triggered. Its targets have
    /// been removed.
    Remove,
}

/// The flag with which our replacement of Arch's dkms script calls this program. Administrators
/// call that script from their own hooks, which may run before the transaction.
pub const SCRIPT: &str = "--script";

/// Builds and installs missing modules after a transaction, removes modules without a source or
/// kernel, and finishes pending work.
///
/// dkms-install and dkms-remove both call this function, because each of the two hooks finds all
/// work in the journal.
///
/// # Errors
/// [`Failure`] if the lock cannot be taken or the whole request is refused. A module that fails is
/// not an error, but is reported in the output and by the exit code.
pub fn sync(args: &HookArgs, targets: &Targets, hook: SyncHook) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    let (present, _) = facts::source_dirs(&machine.trees);
    if present.is_empty() && !machine.trees.dkms.exists() && !targets.ourselves {
        return Ok(ExitCode::SUCCESS); // a machine without modules
    }
    let trees = machine.trees.clone();
    let mut told = match hook {
        SyncHook::Install if args.dry_run => Told::nothing(&trees),
        SyncHook::Install => Told::start(&trees),
        SyncHook::Remove => Told::read(&trees),
    };
    match told.install_hook() {
        InstallHook::Ended => {}
        InstallHook::Interrupted => return Ok(ExitCode::SUCCESS),
        InstallHook::Killed => {
            Lines::new(io::stdout(), PackageNames::default()).say_lines(INSTALL_HOOK_KILLED);
            return Ok(ExitCode::SUCCESS);
        }
    }
    let code = sync_modules(args, targets, machine, &present, &mut told, hook);
    if !args.dry_run {
        told.write(&trees);
    }
    code
}

/// The message of 71-dkms-remove if 70-dkms-install was killed. A 70-dkms-install that a signal
/// interrupted has reported the pending work itself.
const INSTALL_HOOK_KILLED: &str = "warning: dkms-install was killed; pending work is finished at the \
                                   next boot\n  run: dkms autoinstall --pending";

fn sync_modules(
    args: &HookArgs,
    targets: &Targets,
    mut machine: Machine,
    present: &BTreeSet<String>,
    told: &mut Told,
    hook: SyncHook,
) -> Result<ExitCode, Failure> {
    warn_of_settings(&machine, told);
    machine.omit_warnings(told.texts().iter().cloned());
    let generator = Generator::detect(&machine);
    machine.images = generator.is_some();
    let lock = lock(args, &machine)?;
    let is_completed = args.flag != Some(SCRIPT);
    let own = |transaction| OwnTransaction { transaction, is_completed };
    let own = told.transaction().cloned().map(own);
    let mut arrived = Subjects::default();
    let mut departed = Subjects::default();
    match hook {
        SyncHook::Install => arrived = targets.subjects(),
        SyncHook::Remove if is_completed => departed = targets.subjects(),
        SyncHook::Remove => {}
    }
    if targets.ourselves {
        // The transaction installed alpm-dkms, so no hook has recorded the existing sources.
        arrived.sources.extend(present.iter().cloned());
    }
    let mut changed = arrived.clone();
    changed.extend(&departed);
    let scope = Scope { changed: Some(changed), own, trusts_packages: true, ..Scope::default() };
    let mut facts = facts::read(&machine, &scope);
    if lock.is_some() {
        let renamed = act::carry_over_registrations(&machine, &facts, &BTreeSet::new());
        if !renamed.is_empty() {
            let mut lines = Lines::new(io::stdout(), PackageNames::default());
            renamed.iter().for_each(|line| lines.say(line));
            facts = facts::read(&machine, &scope);
        }
    }
    facts.tried = told.tried();
    let headers = match hook {
        SyncHook::Install => targets.headers.clone(),
        SyncHook::Remove => BTreeSet::new(),
    };
    let request = Request::Sync { arrived, departed, headers };
    // If there is nothing to do, the lookup would take longer than the rest of the hook.
    let mut packages = None;
    if plan_depends_on_owners(&facts, targets) {
        let found = look_up_packages(&machine, present, &facts);
        facts.mark_copies(found.unowned());
        packages = Some(found);
    }
    let mut plan = plan::make(&request, &facts)?;
    if targets.ourselves {
        plan.note_missing_headers(&facts);
    }
    if packages.is_none() && output_names_packages(&plan) {
        packages = Some(look_up_packages(&machine, present, &facts));
    }
    let names = PackageNames::new(packages.unwrap_or_default(), &facts);
    let (code, report) = carry_out(args, &plan, &facts, &machine, names, told.clone());
    if let Some(report) = report.filter(|_| hook == SyncHook::Install) {
        told.add_run(&plan, &report);
    }
    if !args.dry_run {
        told.add(machine.logged_warnings());
        images::snapshot(&machine, generator.as_ref())?;
    }
    Ok(code)
}

/// Returns true if the plan depends on which packages own the kernels.
///
/// The plan ignores a kernel that no package owns, because it may be a copy that is kept until the
/// next boot. Such a copy can exist if this transaction or pending work touched a kernel, or if two
/// kernels name the same package, although the package owns only one of them.
fn plan_depends_on_owners(facts: &Facts, targets: &Targets) -> bool {
    let alive = facts.kernels.values().filter(|about| about.kernel.alive);
    let mut packages = BTreeSet::new();
    let mut share_a_package =
        alive.filter_map(|about| about.kernel.pkgbase.as_ref()).filter(|it| !packages.insert(*it));
    targets.ourselves
        || !targets.kernels.is_empty()
        // This transaction's journal names only kernels among the targets, so any other kernel
        // comes from earlier work.
        || !facts.changed_kernels().is_subset(&targets.headers)
        || share_a_package.next().is_some()
}

/// Returns true if the output for a plan contains package names.
fn output_names_packages(plan: &Plan) -> bool {
    let names_package = |note: &Note| matches!(note, Note::NoHeaders { .. });
    !plan.is_empty() || plan.notes.iter().any(names_package)
}

/// Cleans up before a transaction that removes alpm-dkms, such as `pacman -Rs` of the last module.
/// Does nothing before any other transaction.
///
/// Removes the modules whose source or kernel the transaction removes, because afterwards our
/// PostTransaction hooks no longer exist. If another package provides `dkms`, removes only our own
/// files.
///
/// # Errors
/// [`Failure`] if the lock cannot be taken.
pub fn depart(args: &HookArgs, targets: &Targets) -> Result<ExitCode, Failure> {
    let machine = Machine::for_hook(&args.root);
    if targets.ourselves && !args.dry_run {
        mkinitcpio_override::remove(&args.root)?;
    }
    if !targets.ourselves || !machine.trees.dkms.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    warn_of_settings(&machine, &mut Told::nothing(&machine.trees));
    let lock = lock(args, &machine)?;
    let facts = facts::read(&machine, &Scope { shallow: true, ..Scope::default() });
    let request = Request::Depart {
        sources: targets.sources.clone(),
        kernels: targets.kernels.clone(),
        swap: targets.dkms_binary,
    };
    let plan = plan::make(&request, &facts)?;
    let names = PackageNames::default();
    let (code, _) = carry_out(args, &plan, &facts, &machine, names, Told::default());
    if !args.dry_run && !targets.dkms_binary {
        restore_if_aborted(&machine, targets, &facts)?;
    }
    drop(lock);
    // This fails if the tree is not empty, as intended.
    let _ = fs::remove_dir(&machine.trees.dkms);
    Ok(code)
}

/// Records the sources and kernels of `targets` as pending work, and records earlier pending work
/// again. If the transaction is aborted, the sources and kernels still exist, and the next run
/// installs their modules again. Otherwise, a scriptlet of alpm-dkms deletes the record.
fn restore_if_aborted(machine: &Machine, targets: &Targets, facts: &Facts) -> Result<(), Failure> {
    let list = PendingList::of(&machine.trees);
    let Subjects { sources, kernels } = targets.subjects();
    if !sources.is_empty() || !kernels.is_empty() {
        list.write(&PendingWork::Transaction { sources, kernels })?;
    }
    facts.pending.iter().try_for_each(|work| list.write(work))?;
    Ok(())
}

/// Carries out a plan, or prints it in a dry run. Omits messages that `told` contains. Returns the
/// exit code and, except in a dry run, the report.
fn carry_out(
    args: &HookArgs,
    plan: &Plan,
    facts: &Facts,
    machine: &Machine,
    names: PackageNames,
    told: Told,
) -> (ExitCode, Option<Report>) {
    let mut lines = Lines::new(io::stdout(), names);
    if args.dry_run {
        lines.dry_run(plan);
        return (ExitCode::SUCCESS, None);
    }
    lines.omit(told);
    if let Err(why) = machine.tools.stop.listen() {
        lines.say(&format!(
            "warning: cannot handle signals: {why}; Ctrl-C may leave work unfinished"
        ));
    }
    let report = act::carry_out(plan, facts, machine, &mut lines);
    lines.summary(plan, &report);
    let code = match &report.interrupted {
        Some(interruption) => ExitCode::from(interruption.exit_code()),
        None if report.is_clean() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    };
    (code, Some(report))
}

/// Looks up the packages of all sources and kernels. On failure, prints a warning and returns no
/// packages.
fn look_up_packages(machine: &Machine, sources: &BTreeSet<String>, facts: &Facts) -> Packages {
    let alive = facts.kernels.iter().filter(|(_, about)| about.kernel.alive);
    let query = PackageQuery {
        sources: sources.clone(),
        kernels: alive.map(|(release, _)| release.clone()).collect(),
        ..PackageQuery::default()
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

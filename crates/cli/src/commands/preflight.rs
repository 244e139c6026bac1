//! `dkms preflight`: test-builds modules with packages that are not installed yet.

use std::path::{Path, PathBuf};

use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use preflight::command::{Question, QuestionPackages};
use preflight::permission;

use crate::args::intent::PreflightIntent;
use crate::args::machine::is_root;
use crate::args::options::OptId;
use crate::args::parsed::Args;
use crate::args::refusal::{NOT_ROOT, refuse};
use crate::output::console::Console;

/// Runs the command and returns the exit code.
///
/// # Errors
/// [`Failure`] with exit code 1 if the user is not root, a file does not exist or the dkms tree is
/// not writable, 2 if the trees are not those of the running system.
pub fn run(
    machine: &Machine,
    args: &Args,
    intent: PreflightIntent,
    console: &Console,
) -> Result<u8, Failure> {
    let dry_run = args.has(OptId::DryRun);
    match intent {
        PreflightIntent::AllowOnce => allow_once(machine, dry_run, console),
        PreflightIntent::Files(files) => {
            check_trees(args, "package files")?;
            let files = files.iter().map(|file| absolute(file)).collect::<Result<_, _>>()?;
            ask(machine, args, QuestionPackages::Files(files), console)
        }
        PreflightIntent::Upgrade { downloads } => {
            check_trees(args, "--upgrade")?;
            ask(machine, args, QuestionPackages::Upgrade { downloads }, console)
        }
    }
}

/// Test-builds the modules with `packages`. Returns only on an error.
fn ask(
    machine: &Machine,
    args: &Args,
    packages: QuestionPackages,
    console: &Console,
) -> Result<u8, Failure> {
    let dry_run = args.has(OptId::DryRun);
    let question = Question { packages, json: args.has(OptId::Json), dry_run };
    // pacman reads new databases only for root.
    let is_upgrade = matches!(question.packages, QuestionPackages::Upgrade { .. });
    if (is_upgrade || !dry_run) && !is_root(machine) {
        return refuse(1, NOT_ROOT);
    }
    refuse(1, question.exec(args.has(OptId::Idle), console.is_quiet()).to_string())
}

/// Refuses options that select other trees: a trial mounts its copies over the default trees.
fn check_trees(args: &Args, subject: &str) -> Result<(), Failure> {
    let trees = [
        ("--root", &args.root),
        ("--dkmstree", &args.dkms_tree),
        ("--sourcetree", &args.source_tree),
        ("--installtree", &args.install_tree),
    ];
    match trees.into_iter().find(|(_, tree)| tree.is_some()) {
        Some((option, _)) => refuse(2, format!("{option}: cannot be used with {subject}")),
        None => Ok(()),
    }
}

/// Returns the absolute path of a file that exists.
fn absolute(file: &Path) -> Result<PathBuf, Failure> {
    let found = file.metadata().and_then(|_| std::path::absolute(file));
    found.or_else(|why| refuse(1, format!("{}: {why}", file.display())))
}

fn allow_once(machine: &Machine, dry_run: bool, console: &Console) -> Result<u8, Failure> {
    if dry_run {
        console.print("would allow the next transaction to lose modules\n");
        return Ok(0);
    }
    if !is_root(machine) {
        return refuse(1, NOT_ROOT);
    }
    permission::grant(&machine.trees)?;
    console.print(
        "The preflight will not abort the next transaction that would lose needed modules.\n\
         The permission is valid once, and expires after one day.\n",
    );
    Ok(0)
}

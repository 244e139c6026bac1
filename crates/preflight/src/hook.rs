//! The PreTransaction hook: runs a preflight and decides whether the transaction may continue.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use alpm_hook::lines::LineWriter;
use alpm_hook::{HookArgs, Targets};
use dkms_engine::dkms_tree::TreeState;
use dkms_engine::facts::source_dirs;
use dkms_engine::machine::{Lock, Machine, PreflightMode, Transaction, has_other_root};

use crate::not_tried::NotTried;
use crate::scratch_dir::ScratchDir;
use crate::session::{exit_code, run_worker};
use crate::supervisor::{Supervisor, block_signals};
use crate::worker::{ABORT, Purpose};

/// The maximum time for which a preflight waits for another run of alpm-dkms. The hooks that run
/// after the transaction wait without limit.
const PATIENCE: Duration = Duration::from_secs(30);

/// The interval at which a preflight that waits for the lock checks that pacman is still running.
const LOOK_AT_PACMAN: Duration = Duration::from_millis(500);

/// Checks, before the transaction, whether the modules will build after it. Returns a failure if
/// the transaction must be aborted, and success in every other case.
pub fn before_transaction(args: &HookArgs, targets: &Targets) -> ExitCode {
    // If a signal killed the hook, the transaction would be aborted.
    block_signals();
    // A panic would abort it, too.
    let aborts = catch_unwind(AssertUnwindSafe(|| run(args, targets)));
    match aborts {
        Ok(Ok(true)) => ExitCode::FAILURE,
        Ok(Ok(false)) | Err(_) => ExitCode::SUCCESS,
        Ok(Err(why)) => {
            say(&why.note());
            ExitCode::SUCCESS
        }
    }
}

fn run(args: &HookArgs, targets: &Targets) -> Result<bool, NotTried> {
    let machine = Machine::for_hook(&args.root);
    let trees = &machine.trees;
    if machine.settings.preflight.mode == PreflightMode::Off
        || targets.paths.is_empty()
        || machine.is_within_run()
    {
        return Ok(false);
    }
    let has_modules =
        || !source_dirs(trees).0.is_empty() || !TreeState::read(trees).modules.is_empty();
    if targets.sources.is_empty() && !has_modules() {
        return Ok(false);
    }
    let transaction = Transaction::of_this_hook(trees);
    let pacman = transaction.is_known().then(|| transaction.process());
    // With another root, pacman's paths of package files lead elsewhere.
    if pacman.is_some_and(|pacman| has_other_root(Path::new("/proc"), pacman)) {
        return Err(NotTried::new("pacman is using another root directory (--root)"));
    }
    if args.dry_run {
        say(&format!("would test-build the modules affected by {} paths", targets.paths.len()));
        return Ok(false);
    }
    for problem in machine.settings.problems() {
        say(&format!("warning: {problem}"));
    }
    let lock = take_lock(&machine, &transaction)?;
    let scratch = ScratchDir::create(trees, &lock)?;
    let supervisor = Supervisor { pacman, timeout: machine.settings.preflight.timeout() };
    let purpose = Purpose::Transaction { pacman, targets: targets.paths.clone() };
    let ending = run_worker(args.root.clone(), scratch, &supervisor, purpose)?;
    drop(lock);
    match exit_code(ending)? {
        0 => Ok(false),
        code if code == i32::from(ABORT) => Ok(true),
        code => Err(NotTried::new(format!("the worker failed (exit code {code})"))),
    }
}

/// Takes the lock. Fails if another run holds the lock for too long or if pacman ends during the
/// wait.
fn take_lock(machine: &Machine, transaction: &Transaction) -> Result<Lock, NotTried> {
    let until = Instant::now() + PATIENCE;
    loop {
        let lock = Lock::take_within(&machine.trees, &machine.env, LOOK_AT_PACMAN)?;
        if let Some(lock) = lock {
            return Ok(lock);
        }
        if transaction.is_over(&machine.trees) {
            return Err(NotTried::new("pacman has ended"));
        }
        if Instant::now() >= until {
            return Err(NotTried::new("timed out waiting for another run of alpm-dkms"));
        }
    }
}

fn say(line: &str) {
    LineWriter::new(io::stdout()).line(line);
}

//! The PreTransaction hook: runs a preflight and decides whether the transaction may go on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use alpm_hook::lines::LineWriter;
use alpm_hook::{HookArgs, Targets};
use dkms_engine::facts::source_dirs;
use dkms_engine::machine::{Lock, Machine, PreflightMode, Transaction};

use crate::not_tried::NotTried;
use crate::permission;
use crate::session::{exit_code, run_worker};
use crate::supervisor::{Supervisor, has_other_root};
use crate::worker::{ABORT, Purpose, WorkerJob};

/// The time that a preflight waits for another run of alpm-dkms. After the transaction, the hooks
/// wait without limit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries whether the modules build after the transaction. Returns a failure if the transaction has
/// to be aborted, and success in every other case.
pub fn before_transaction(args: &HookArgs, targets: &Targets) -> ExitCode {
    // A panic would abort the transaction, too.
    let aborts = catch_unwind(AssertUnwindSafe(|| run(args, targets)));
    match aborts {
        Ok(Ok(true)) => ExitCode::FAILURE,
        Ok(Ok(false)) | Err(_) => ExitCode::SUCCESS,
        Ok(Err(why)) => {
            say(&format!("note: modules not tried before the transaction: {why}"));
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
    let (present, _) = source_dirs(trees);
    if present.is_empty() && targets.sources.is_empty() {
        return Ok(false); // a machine without modules
    }
    let transaction = Transaction::of_this_hook(trees);
    let pacman = transaction.is_known().then(|| transaction.process());
    if pacman.is_some_and(has_other_root) {
        return Err(NotTried::new("pacman works on another root directory (--root)"));
    }
    if args.dry_run {
        say(&format!("would try the modules for {} paths", targets.paths.len()));
        return Ok(false);
    }
    let lock = Lock::take_within(trees, &machine.env, PATIENCE)?;
    let Some(lock) = lock else {
        return Err(NotTried::new("another run of alpm-dkms is not finished"));
    };
    let job = WorkerJob {
        root: args.root.clone(),
        purpose: Purpose::Transaction {
            pacman,
            targets: targets.paths.clone(),
            allowed: permission::take(trees),
        },
    };
    let supervisor = Supervisor { pacman, timeout: machine.settings.preflight.timeout() };
    let ending = run_worker(&machine, lock, &supervisor, &job)?;
    match exit_code(ending)? {
        0 => Ok(false),
        code if code == i32::from(ABORT) => Ok(true),
        code => Err(NotTried::new(format!("the worker failed (exit code {code})"))),
    }
}

fn say(line: &str) {
    LineWriter::new(io::stdout()).line(line);
}

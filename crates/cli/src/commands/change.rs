//! Runs a command that changes modules: takes the lock, reads the facts, makes a plan and carries
//! it out.

use dkms_engine::act;
use dkms_engine::facts::{self, Facts, Scope};
use dkms_engine::failure::Failure;
use dkms_engine::machine::Lock;
use dkms_engine::machine::Machine;
use dkms_engine::names::Arch;
use dkms_engine::os::limits::ensure_open_files;
use dkms_engine::plan::{self, Plan, Request, Verb};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::args::machine::is_root;
use crate::args::refusal::{NOT_ROOT, refuse};
use crate::output::console::Console;
use crate::output::progress::Progress;

/// The machine, output and options that are shared by the operations of one command.
#[derive(Debug)]
pub struct Session<'a> {
    /// The machine to change.
    pub machine: Machine,
    /// The output of the command.
    pub console: &'a Console,
    /// Whether `--dry-run` was given.
    pub dry_run: bool,
    /// Whether `--force` was given.
    pub force: bool,
}

/// One run of the engine.
#[derive(Debug)]
pub struct Operation {
    /// The request to plan for.
    pub request: Request,
    /// The scope of the facts to read.
    pub scope: Scope,
    /// The rights that the user needs.
    pub needs: Rights,
    /// The exit code for every failure (dkms-behaviour 9); `None` for the exit code of the failure
    /// itself.
    pub failure_code: Option<u8>,
}

/// The rights that dkms requires of the user (dkms-behaviour 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The dkms tree must be writable.
    Write,
    /// The user must be root, and the dkms tree must be writable.
    Root,
}

impl Session<'_> {
    /// Carries out an operation and returns the exit code. `arch` is the architecture to work on;
    /// `None` means the architecture of this machine.
    pub fn run(&mut self, arch: Option<Arch>, operation: &Operation) -> u8 {
        if self.machine.tools.stop.asked().is_some() {
            return 0; // an earlier operation was interrupted
        }
        self.machine.arch = arch.unwrap_or_else(Arch::of_this_machine);
        let mut progress = self.console.progress(&self.machine);
        let code = operation.carry_out(&self.machine, self.dry_run, &mut progress);
        code.unwrap_or_else(|failure| {
            progress.error(&failure.to_string());
            failure.code
        })
    }
}

impl Operation {
    fn carry_out(
        &self,
        machine: &Machine,
        dry_run: bool,
        progress: &mut Progress<'_>,
    ) -> Result<u8, Failure> {
        if dry_run {
            let plan = self.plan(machine)?;
            let text = plan.to_string();
            progress.say(match text.trim_end() {
                "" => "Dry run: nothing to do.",
                text => text,
            });
            return Ok(0);
        }
        if let Err(lacking) = self.needs.check(machine) {
            return Err(self.refusal_before_rights(machine).unwrap_or(lacking));
        }
        ensure_open_files().map_err(|problem| Failure::new(1, problem))?;
        let lock = take_lock(machine, progress)?;
        let named = self.scope.modules.clone().unwrap_or_default();
        let mut facts = facts::read(machine, &self.scope);
        let renamed = act::carry_over_registrations(machine, &facts, &named);
        if !renamed.is_empty() {
            renamed.iter().for_each(|line| progress.say(line));
            facts = facts::read(machine, &self.scope);
        }
        let plan = plan::make(&self.request, &facts)?;
        let code = self.act(&plan, &facts, machine, progress);
        drop(lock);
        Ok(code)
    }

    /// Returns the error that dkms reports even if the user lacks rights: the module is broken (4)
    /// or not added (3). Returns `None` if there is no such error or the command is `add`.
    fn refusal_before_rights(&self, machine: &Machine) -> Option<Failure> {
        let refusal = self.plan(machine).err()?;
        let first = matches!(self.request, Request::Command { verb, .. } if verb != Verb::Add)
            && [3, 4].contains(&refusal.code);
        first.then_some(refusal)
    }

    fn plan(&self, machine: &Machine) -> Result<Plan, Failure> {
        plan::make(&self.request, &facts::read(machine, &self.scope))
    }

    fn act(
        &self,
        plan: &Plan,
        facts: &Facts,
        machine: &Machine,
        progress: &mut Progress<'_>,
    ) -> u8 {
        progress.notes(plan);
        if let Err(why) = machine.tools.stop.listen() {
            progress
                .warn(&format!("cannot handle signals: {why}; Ctrl-C may leave work unfinished"));
        }
        let report = act::carry_out(plan, facts, machine, progress);
        progress.errors_and_warnings(&report);
        if let Some(interruption) = &report.interrupted {
            progress.error(&interruption.to_string());
            return interruption.exit_code();
        }
        match (report.exit_code(), self.failure_code) {
            (0, _) => 0,
            (_, Some(code)) | (code, None) => code,
        }
    }
}

/// Takes the lock of the dkms tree. Prints a line if another run holds the lock.
///
/// # Errors
/// [`Failure`] with exit code 1 if the lock cannot be taken.
pub fn take_lock(machine: &Machine, progress: &mut Progress<'_>) -> Result<Lock, Failure> {
    Ok(Lock::take(&machine.trees, &machine.env, &mut |text| progress.say(text))?)
}

/// Checks that the dkms tree is writable.
///
/// # Errors
/// [`Failure`] with exit code 1, as in dkms, if the dkms tree is not writable.
pub fn check_writable(machine: &Machine) -> Result<(), Failure> {
    Rights::Write.check(machine)
}

impl Rights {
    fn check(self, machine: &Machine) -> Result<(), Failure> {
        if self == Self::Root && !is_root(machine) {
            return refuse(1, NOT_ROOT);
        }
        let there = machine.trees.dkms.ancestors().find(|dir| dir.exists());
        let denied = there.map(|dir| (dir, access(dir, AccessFlags::W_OK)));
        match denied {
            Some((_, Ok(()))) => return Ok(()),
            Some((dir, Err(Errno::EROFS))) => {
                return refuse(1, format!("{}: read-only file system", dir.display()));
            }
            _ => {}
        }
        refuse(1, format!("{}: permission denied: run dkms as root", machine.trees.dkms.display()))
    }
}

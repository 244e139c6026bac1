//! Runs make: sets up its environment and command line, and explains its failures.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Attempt, Build, Prepared};
use crate::building::compilers::{compile_once, launcher};
use crate::building::make_log::MakeLog;
use crate::conf::MakeChoice;
use crate::failure::Failure;
use crate::machine::{Command, KernelConfig, Machine, path_programs, reads_running_kernel};
use crate::module_scripts;
use crate::os::process::{Ended, Environment, How, Output, Program};
use crate::report::Phase;

/// A bash script that sources the file `$1` and prints the environment as NUL-terminated variables.
const EXPORTED: &str =
    r#"[ -r "$1" ] || { echo not readable >&2; exit 1; }; source "$1" >&2; exec /usr/bin/env -0"#;

/// Variables that bash itself sets.
const SET_BY_BASH: [&str; 4] = ["_", "SHLVL", "PWD", "OLDPWD"];

/// The environment variable with the path of the jobserver's FIFO. `dkms-confine` reads it.
const JOBSERVER: &str = "ALPM_DKMS_JOBSERVER";

impl Build<'_> {
    /// Returns the environment for make and for the module's scripts (dkms-behaviour 4.2). Its PATH
    /// begins with the directories of alpm-dkms's own programs.
    ///
    /// `keeps_symbols` is true if at least one object is not stripped.
    pub(super) fn environment(
        &self,
        config: Option<&KernelConfig>,
        keeps_symbols: bool,
    ) -> Result<Environment, Failure> {
        // A script that found the target's release in `uname` would read the empty files, so
        // `uname` prints the running release.
        let names_running =
            self.workplace.hides_running_kernel() && reads_running_kernel(&self.source()?);
        let programs = path_programs(self.machine, !names_running)?;
        let mut env = module_scripts::environment(self.machine, self.id, &self.kernel.release)
            .with(JOBSERVER, self.jobserver.path())
            .first_in_path(&programs)
            .with_english_messages();
        if let Some(compiler) = self.kernel_variables(&env) {
            env = env.with("CC", compiler);
        }
        if let Some(config) = config {
            let exists = |name: &str| env.find(name).is_some();
            for (name, value) in config.compiler_environment(exists) {
                env = env.with(name, value);
            }
        }
        if let Some(file) = self.machine.settings.build_environment() {
            env = self.exported(&self.machine.trees.inside(&file), env);
        }
        // compile-once cannot precompile headers for clang, which handles them differently from
        // gcc.
        let objects = if config.is_some_and(KernelConfig::is_clang) { 0 } else { self.objects };
        let env = compile_once::environment(self.machine, env, keeps_symbols, objects);
        Ok(launcher::environment(self.machine, env))
    }

    /// Returns the compiler that Debian's headers name in `.kernelvariables`. Returns `None` if
    /// that file does not exist or names no compiler.
    fn kernel_variables(&self, env: &Environment) -> Option<String> {
        let file = self.kernel.headers.as_ref()?.join(".kernelvariables");
        if !file.is_file() {
            return None;
        }
        let makefile = format!("include {}\nall:;@echo $(CC)\n", file.display());
        let ended = Program::new("make", env)
            .args(["-s", "--no-print-directory", "-f", "-", "all"])
            .stdin(makefile)
            .cwd("/")
            .deadline(self.machine.settings.conf_timeout())
            .run();
        let ended = ended.ok().filter(Ended::success)?;
        Some(String::from_utf8_lossy(&ended.output).trim().to_owned()).filter(|cc| !cc.is_empty())
    }

    /// Returns `env` with the variables that the shell script `file` exports. If `file` cannot be
    /// evaluated, warns and returns `env` unchanged.
    fn exported(&self, file: &Path, env: Environment) -> Environment {
        let ended = Program::new(self.machine.tools.bash.clone(), &env)
            .args(["-p", "-c", EXPORTED, "build_environment"])
            .arg(file)
            .cwd("/")
            .deadline(self.machine.settings.conf_timeout())
            .confined(&self.machine.tools)
            .run();
        let exported = match ended {
            Ok(ended) if ended.success() => ended.output,
            Ok(ended) => {
                let said = ended.complaint();
                self.machine.warnings.add(format!("{}: ignored: {said}", file.display()));
                return env;
            }
            Err(error) => {
                self.machine.warnings.add(format!("{}: ignored: {error}", file.display()));
                return env;
            }
        };
        let mut all = env;
        for variable in exported.split(|byte| *byte == 0) {
            let Some(at) = variable.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (&variable[..at], &variable[at + 1..]);
            if !SET_BY_BASH.iter().any(|own| own.as_bytes() == name) {
                all = all.with(OsStr::from_bytes(name), OsStr::from_bytes(value));
            }
        }
        all
    }

    pub(super) fn make(&self, prepared: &Prepared, log: &mut MakeLog) -> Result<(), Failure> {
        let command = self.make_command(prepared);
        let program = Program::new(self.machine.tools.bash.clone(), &prepared.env)
            .args(["-p", "-c"])
            .arg(&command)
            .cwd(&self.workplace.seen)
            .deadline(self.machine.settings.build_timeout())
            .confined(&self.machine.tools);
        let program = self.workplace.show(program);
        (self.report)(Phase::Compiling);
        let kills = self.machine.memory.kills();
        let known = self.writes_source || self.attempt == Attempt::Alone;
        let kind = if known { Command::InBuild } else { Command::Make };
        let ended = log
            .step("Building module(s)", &command, |file| {
                self.watching_source(kind, || program.output(Output::Log(file)).run())
            })
            .map_err(|error| self.not_run(error))?;
        let kills = self.machine.memory.kills() > kills;
        self.note_killed(&ended, kills);
        if ended.success() { Ok(()) } else { Err(self.make_failed(log, &ended, kills)) }
    }

    /// Notifies the jobserver if a program that may have run make was killed. `ended` is the result
    /// of the program. `kills` is true if the OOM killer killed a process while the program ran.
    pub(super) fn note_killed(&self, ended: &Ended, kills: bool) {
        if kills || !matches!(ended.how, How::Exited(_)) {
            self.jobserver.note_killed();
        }
    }

    /// Returns the command that builds the module.
    ///
    /// Like dkms (dkms-behaviour 4.3), adds KERNELRELEASE, but only if the command starts with the
    /// word `make`. Unlike dkms, adds no `-j`, since the jobserver limits the number of jobs.
    fn make_command(&self, prepared: &Prepared) -> String {
        let release = &self.kernel.release;
        let mut command = match &prepared.conf.make {
            MakeChoice::Generic => {
                let place = self.workplace.seen.display();
                format!("make -C {} M={place}", prepared.headers.display())
            }
            MakeChoice::Text(text) => text.clone(),
        };
        if let Some(rest) = command.strip_prefix("make")
            && (rest.is_empty() || rest.starts_with([' ', '\t']))
        {
            command = format!("make KERNELRELEASE={release}{rest}");
        }
        if prepared.config.as_deref().is_some_and(KernelConfig::is_clang) {
            command.push_str(" LLVM=1");
        }
        command
    }

    /// Returns the failure of make. `kills` is true if the OOM killer killed a process while
    /// the command ran.
    fn make_failed(&self, log: &MakeLog, ended: &Ended, kills: bool) -> Failure {
        // The log begins with the command.
        let message = format!("make failed ({})", ended.how);
        let mut failed = self.step_failed(log, 10, &message);
        match ended.how {
            How::TimedOut => {
                let limit = self.machine.settings.build_timeout().as_secs();
                failed.message = format!(
                    "make timed out after {limit} s ([build] timeout in /etc/dkms/alpm-dkms.toml)"
                );
            }
            How::Interrupted => failed.transient = true,
            // The OOM killer or an administrator killed make.
            How::Killed(signal) => {
                failed.transient = true;
                failed.out_of_memory |= kills && signal == Signal::SIGKILL as i32;
            }
            How::Exited(_) => {}
        }
        let by_us = matches!(ended.how, How::TimedOut | How::Interrupted);
        failed.out_of_memory &= !by_us;
        if failed.out_of_memory {
            let problem = if kills { "out of memory" } else { "probably out of memory" };
            failed.message = format!("{problem}: make failed ({})", ended.how);
        }
        failed
    }
}

/// Returns the first line that the compiler prints for `--version`; empty if the compiler cannot be
/// run.
///
/// The program is confined, because it may be a launcher that starts a server.
pub(crate) fn compiler(machine: &Machine, env: &Environment) -> String {
    let cc = env.get("CC").unwrap_or("cc".as_ref());
    let program = Program::new(cc, env).arg("--version").deadline(Duration::from_secs(5));
    let ended = program.confined(&machine.tools).run();
    let output = ended.map(|ended| ended.output).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}

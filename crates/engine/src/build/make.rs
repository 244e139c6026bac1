//! What compiles: its environment, its command, and what its failure means.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Build, Prepared, step_failed};
use crate::conf::MakeChoice;
use crate::kernels::KernelConfig;
use crate::launcher;
use crate::make_log::MakeLog;
use crate::report::{Failed, Phase};
use crate::run::{Ended, Environment, How, Output, Program};
use crate::{programs, scripts};

impl Build<'_> {
    /// What make and the scripts see (dkms-behaviour 4.2), with our [`programs`] first in
    /// PATH.
    pub(super) fn environment(&self, config: Option<&KernelConfig>) -> Result<Environment, Failed> {
        let programs = programs::directory(self.site)?;
        let mut env =
            scripts::environment(self.site, self.id, &self.kernel.release).first_in_path(&programs);
        if let Some(config) = config {
            let exists = |name: &str| in_path(name, &env);
            for (name, value) in config.compiler_environment(exists) {
                env = env.with(name, value);
            }
        }
        Ok(launcher::environment(self.site, env))
    }

    pub(super) fn make(&self, prepared: &Prepared, log: &mut MakeLog) -> Result<(), Failed> {
        let command = self.make_command(prepared);
        let program = Program::new(self.site.tools.bash.clone(), &prepared.env)
            .args(["--norc", "--noprofile", "-c"])
            .arg(&command)
            .cwd(&self.workplace.seen)
            .deadline(self.site.settings.build_timeout())
            .jobserver(self.jobserver)
            .confined(&self.site.tools);
        let program = self.workplace.show(program);
        (self.tell)(Phase::Compiling);
        let kills = self.site.memory.kills();
        let ended = log
            .step("Building module(s)", &command, |file| program.output(Output::Log(file)).run())
            .map_err(step_failed)?;
        let kills = self.site.memory.kills() > kills;
        if ended.success() { Ok(()) } else { Err(self.make_failed(&ended, &command, kills)) }
    }

    /// dkms's rewriting (4.3), but only of the word `make` itself, and without `-j`: the
    /// jobserver gives the jobs.
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
        if prepared.config.as_ref().is_some_and(KernelConfig::is_clang) {
            command.push_str(" LLVM=1");
        }
        command
    }

    /// `kills` tells whether the kernel has killed something for want of memory meanwhile.
    fn make_failed(&self, ended: &Ended, command: &str, kills: bool) -> Failed {
        let mut failed = self.failed(10, &format!("make failed ({}): {command}", ended.how));
        match ended.how {
            How::TimedOut => {
                let limit = self.site.settings.build_timeout().as_secs();
                failed.message = format!(
                    "it was not finished after {limit} s, the limit of [build] timeout in \
                     /etc/dkms/alpm-dkms.toml"
                );
            }
            How::Interrupted => failed.passing = true,
            // Somebody else's signal: the kernel short of memory, or an administrator.
            How::Killed(signal) => {
                failed.passing = true;
                failed.starved |= kills && signal == Signal::SIGKILL as i32;
            }
            How::Exited(_) => {}
        }
        let by_us = matches!(ended.how, How::TimedOut | How::Interrupted);
        failed.starved &= !by_us;
        if failed.starved {
            let sure = if kills { "" } else { ", as it seems" };
            failed.message = format!("it ran out of memory{sure} ({}): {command}", ended.how);
        }
        failed
    }
}

fn in_path(name: &str, env: &Environment) -> bool {
    env.get("PATH").is_some_and(|path| {
        std::env::split_paths(path).any(|dir| {
            dir.join(name)
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    })
}

/// How the compiler names itself, for the record.
pub(super) fn compiler(env: &Environment) -> String {
    let cc = env.get("CC").unwrap_or("cc".as_ref());
    let asked = Program::new(cc, env).arg("--version").deadline(Duration::from_secs(5)).run();
    let output = asked.map(|ended| ended.output).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}

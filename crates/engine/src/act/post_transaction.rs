//! Loads the installed modules and runs the administrator's `post_transaction` command at the end
//! of a run.

use crate::building::MakeLog;
use crate::installing;
use crate::machine::Machine;
use crate::machine::running_release;
use crate::names::KernelRelease;
use crate::os::durable;
use crate::os::process::{Output, Program};
use crate::plan::Action;
use crate::report::{Outcome, Report};

/// Carries out the actions at the end of a run (dkms-behaviour 5.6). Their failures do not affect
/// the exit code.
///
/// Loads modules only if the run has installed modules for the running kernel. With
/// `modprobe_on_install`, loads the modules for the devices and those listed in modules-load.d(5).
/// In a run that a systemd unit has started, loads the modules listed in modules-load.d(5) even
/// without this setting, since the unit runs after systemd-modules-load.service. If the unit ran
/// before that service, the boot would wait for compilers before sysinit.target.
///
/// Runs the `post_transaction` command if the run installed, uninstalled, unbuilt or removed a
/// module.
pub(crate) fn all(machine: &Machine, report: &Report) {
    let done: Vec<&Action> = report
        .finished
        .iter()
        .filter(|finished| finished.outcome == Outcome::Done)
        .map(|finished| &finished.step.action)
        .collect();
    let running = running_release();
    let usable_now = |action: &&Action| {
        matches!(action, Action::Install { .. }) && action.kernel() == running.as_ref()
    };
    if done.iter().any(usable_now) {
        let wanted = machine.settings.framework.modprobe_on_install;
        if wanted {
            installing::load_for_devices(machine);
        }
        if wanted || machine.options.by_systemd {
            installing::load_listed(machine);
        }
    }
    let changes = |action: &&&Action| {
        matches!(
            action,
            Action::Install { .. }
                | Action::Uninstall { .. }
                | Action::Unbuild(..)
                | Action::Deregister(_)
        )
    };
    if let Some(first) = done.iter().find(changes)
        && machine.settings.framework.post_transaction.is_some()
    {
        let kernel = first.kernel().cloned().or(running);
        post_transaction(machine, kernel.as_ref());
    }
}

/// Runs the `post_transaction` command, if it is set for `kernel`, and logs its output. In the
/// command, `$kernelver` is `kernel`, the first kernel for which a module changed.
fn post_transaction(machine: &Machine, kernel: Option<&KernelRelease>) {
    let Some(command) = machine.framework(kernel).post_transaction else { return };
    if let Err(error) = durable::create_dirs(&machine.trees.dkms) {
        return machine.warnings.add(error.to_string());
    }
    let log = machine.trees.dkms.join("post_transaction.log");
    let mut env = machine.env.clone().with(crate::machine::WITHIN_RUN, "1");
    if let Some(kernel) = kernel {
        env = env.with("kernelver", kernel.as_str());
    }
    let program = Program::new(machine.tools.bash.clone(), &env)
        .args(["--norc", "--noprofile", "-c", &command])
        .cwd("/")
        .deadline(machine.settings.build_timeout())
        .confined(&machine.tools);
    let ran = MakeLog::without_head(&log).map_err(|error| error.to_string()).and_then(|mut log| {
        log.step("Running the post_transaction command", &command, |file| {
            program.output(Output::Log(file)).run()
        })
        .map_err(|error| error.to_string())
    });
    match ran {
        Ok(ended) if ended.success() => {}
        Ok(ended) => machine.warnings.add(format!(
            "post_transaction: command failed ({}): {command}; see: {}",
            ended.how,
            log.display()
        )),
        Err(error) => machine.warnings.add(format!("post_transaction: not run: {error}")),
    }
}

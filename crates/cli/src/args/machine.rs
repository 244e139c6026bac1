//! Sets up the machine that a command works on: its root, trees and settings.

use std::env;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use dkms_engine::failure::Failure;
use dkms_engine::machine::{Machine, RunOptions, Trees};
use dkms_engine::names::Arch;
use nix::sys::utsname::uname;
use nix::unistd::Uid;

use crate::args::commands::Command;
use crate::args::options::OptId;
use crate::args::parsed::Args;
use crate::args::refusal::refuse;
use crate::args::subject::Context;

/// Returns the machine that a command line works on, with its settings and the options that
/// override them.
///
/// # Errors
/// [`Failure`] with exit code 2 for an invalid value or a root that does not exist, 4 for a machine
/// without an os-release file.
pub fn of_command_line(args: &Args) -> Result<Machine, Failure> {
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let root = canonical(root).or_else(|why| {
        refuse(2, format!("invalid value for --root: \"{}\": {why}", root.display()))
    })?;
    let mut machine = Machine::for_cli(&root);
    // dkms makes this check before all others.
    machine.placement().or_else(|why| refuse(4, why.to_string()))?;
    place_trees(&mut machine, args)?;
    machine.options = run_options(args)?;
    machine.settings.framework.symlink_modules |= args.has(OptId::Symlink);
    machine.settings.framework.modprobe_on_install |= args.has(OptId::Modprobe);
    machine.depmod = !args.has(OptId::NoDepmod);
    if let Some(file) = &args.timings {
        machine.settings.set_timings(file.clone());
    }
    if let Some(jobs) = args.jobs.as_deref().filter(|jobs| !jobs.is_empty()) {
        match jobs.parse() {
            Ok(jobs) => machine.settings.set_jobs(jobs),
            Err(_) => return refuse(2, invalid("-j", jobs, "a number")),
        }
    }
    Ok(machine)
}

/// Returns the options that apply only to this run, such as overrides of dkms.conf.
fn run_options(args: &Args) -> Result<RunOptions, Failure> {
    let absolute = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let mut directives = Vec::new();
    for directive in &args.directives {
        match directive.split_once('=') {
            Some((name, text)) => directives.push((name.to_owned(), text.to_owned())),
            None => return refuse(2, invalid("--directive", directive, "NAME=VALUE")),
        }
    }
    Ok(RunOptions {
        module: None,
        conf: absolute(&args.conf)?,
        kernel_config: absolute(&args.config)?,
        kernel_source: absolute(&args.kernel_source)?,
        directives,
        force: args.has(OptId::Force),
        force_install: args.has(OptId::Force) || args.has(OptId::RpmSafeUpgrade),
        force_version: args.has(OptId::ForceVersion),
        only_added: matches!(args.command, Some(Command::Add | Command::Ldtarball)),
        by_systemd: is_main_process_of_unit(),
    })
}

/// Returns true if systemd itself has started this process, as for dkms.service. `SYSTEMD_EXEC_PID`
/// contains the process ID, because other processes may inherit the variable (systemd.exec(5)).
fn is_main_process_of_unit() -> bool {
    let own = process::id().to_string();
    env::var_os("SYSTEMD_EXEC_PID").is_some_and(|id| id == own.as_str())
}

/// Returns the message for an invalid value of an option.
fn invalid(option: &str, value: impl Display, expected: &str) -> String {
    format!("invalid value for {option}: \"{value}\" (expected {expected})")
}

/// Makes a path absolute, because scripts and make run in other directories.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).or_else(|why| refuse(2, format!("{}: {why}", path.display())))
}

/// Sets the trees given by `--dkmstree`, `--sourcetree` and `--installtree`, which override
/// framework.conf.
fn place_trees(machine: &mut Machine, args: &Args) -> Result<(), Failure> {
    let framework = &mut machine.settings.framework;
    let trees = [
        (&args.dkms_tree, &mut framework.dkms_tree),
        (&args.source_tree, &mut framework.source_tree),
        (&args.install_tree, &mut framework.install_tree),
    ];
    for (given, tree) in trees {
        if let Some(given) = given {
            *tree = Some(absolute(given)?);
        }
    }
    machine.trees = machine.settings.relocate(Trees::under(&machine.trees.root));
    Ok(())
}

/// Returns the facts about this machine that are needed to interpret a command line.
pub fn context(machine: &Machine) -> Context<'_> {
    let kernel = uname().map(|it| it.release().to_string_lossy().into_owned());
    Context {
        kernel: kernel.unwrap_or_default(),
        arch: Arch::of_this_machine(),
        is_root: is_root(machine),
        machine,
    }
}

/// Returns true if the user is root or `--root` is given. On another root, only file modes restrict
/// the user.
pub fn is_root(machine: &Machine) -> bool {
    machine.trees.root != Path::new("/") || Uid::effective().is_root()
}

/// Returns `root` as an absolute path without symbolic links, as the kernel and dkms report it.
fn canonical(root: &Path) -> io::Result<PathBuf> {
    env::current_dir()?.join(root).canonicalize()
}

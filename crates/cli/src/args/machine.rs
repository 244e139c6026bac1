//! The machine that a command line works on: its root, its trees and its settings.

use std::env;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

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

/// Reads the machine's settings, and applies the options to them.
///
/// # Errors
/// [`Failure`]: 2 for a root that does not exist and for an invalid value, 4 for a machine without
/// an os-release file.
pub fn of_command_line(args: &Args) -> Result<Machine, Failure> {
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let root = absolute(root).or_else(|why| {
        refuse(2, invalid("--root", root.display(), &format!("a directory: {why}")))
    })?;
    let mut machine = Machine::for_cli(&root);
    // As in dkms, before anything else.
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

/// Returns the options that override files.
fn run_options(args: &Args) -> Result<RunOptions, Failure> {
    let whole = |path: &Option<PathBuf>| path.as_deref().map(whole).transpose();
    let mut directives = Vec::new();
    for directive in &args.directives {
        match directive.split_once('=') {
            Some((name, text)) => directives.push((name.to_owned(), text.to_owned())),
            None => return refuse(2, invalid("--directive", directive, "NAME=VALUE")),
        }
    }
    Ok(RunOptions {
        module: None,
        conf: whole(&args.conf)?,
        kernel_config: whole(&args.config)?,
        kernel_source: whole(&args.kernel_source)?,
        directives,
        force: args.has(OptId::Force),
        force_install: args.has(OptId::Force) || args.has(OptId::RpmSafeUpgrade),
        force_version: args.has(OptId::ForceVersion),
        only_added: matches!(args.command, Some(Command::Add | Command::Ldtarball)),
    })
}

/// Returns the message for an invalid value of an option.
fn invalid(option: &str, value: impl Display, expected: &str) -> String {
    format!("invalid value for {option}: \"{value}\" (expected {expected})")
}

/// Returns an absolute path, for programs that run in other directories.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).or_else(|why| refuse(2, format!("{}: {why}", path.display())))
}

/// Applies `--dkmstree`, `--sourcetree` and `--installtree`, which override framework.conf.
fn place_trees(machine: &mut Machine, args: &Args) -> Result<(), Failure> {
    let framework = &mut machine.settings.framework;
    let places = [
        (&args.dkms_tree, &mut framework.dkms_tree),
        (&args.source_tree, &mut framework.source_tree),
        (&args.install_tree, &mut framework.install_tree),
    ];
    for (said, tree) in places {
        if let Some(said) = said {
            *tree = Some(whole(said)?);
        }
    }
    machine.trees = machine.settings.placed(Trees::under(&machine.trees.root));
    Ok(())
}

/// Returns the defaults of a command line without `-k` and `-a`.
pub fn context(machine: &Machine) -> Context {
    let kernel = uname().map(|it| it.release().to_string_lossy().into_owned());
    Context {
        kernel: kernel.unwrap_or_default(),
        arch: Arch::of_this_machine(),
        is_root: is_root(machine),
        trees: machine.trees.clone(),
    }
}

/// Returns true if the user is root, or if `--root` is given: there the modes of files decide.
pub fn is_root(machine: &Machine) -> bool {
    machine.trees.root != Path::new("/") || Uid::effective().is_root()
}

/// Returns the root as an absolute path without links, as the kernel and dkms report it.
fn absolute(root: &Path) -> io::Result<PathBuf> {
    env::current_dir()?.join(root).canonicalize()
}

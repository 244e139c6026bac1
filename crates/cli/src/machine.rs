//! The machine that a command line means: its root and trees, and what else is said of them.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Machine, RunOptions, Trees};
use dkms_initramfs::generator::Generator;

use crate::commands::Command;
use crate::options::Id;
use crate::typed::Typed;
use crate::wanted::{Refusal, refuse};

/// Reads the machine's settings, and lays over them what was typed.
///
/// # Errors
/// [`Refusal`]: 2 for a root that is not there and for a number that is none, 4 for a machine
/// without an os-release file.
pub fn of_command_line(typed: &Typed) -> Result<Machine, Refusal> {
    let root = typed.root.as_deref().unwrap_or(Path::new("/"));
    let root =
        absolute(root).or_else(|why| refuse(2, format!("--root {}: {why}", root.display())))?;
    let mut machine = Machine::for_cli(&root);
    // First of all, as with dkms: nothing is known of a machine without.
    machine.placement().or_else(|why| refuse(4, why.to_string()))?;
    place_trees(&mut machine, typed)?;
    machine.options = asked(typed)?;
    machine.settings.framework.symlink_modules |= typed.has(Id::Symlink);
    machine.settings.framework.modprobe_on_install |= typed.has(Id::Modprobe);
    machine.depmod = !typed.has(Id::NoDepmod);
    // No image is made from kernels that are elsewhere.
    machine.images = typed.install_tree.is_none() && Generator::of(&machine).is_some();
    if let Some(file) = &typed.timings {
        machine.settings.set_timings(file.clone());
    }
    if let Some(jobs) = typed.jobs.as_deref().filter(|jobs| !jobs.is_empty()) {
        match jobs.parse() {
            Ok(jobs) => machine.settings.set_jobs(jobs),
            Err(_) => return refuse(2, format!("-j {jobs}: this is no number of jobs")),
        }
    }
    Ok(machine)
}

/// What is asked to be otherwise than the files say.
fn asked(typed: &Typed) -> Result<RunOptions, Refusal> {
    let whole = |path: &Option<PathBuf>| path.as_deref().map(whole).transpose();
    let mut directives = Vec::new();
    for directive in &typed.directives {
        match directive.split_once('=') {
            Some((name, text)) => directives.push((name.to_owned(), text.to_owned())),
            None => return refuse(2, format!("--directive {directive}: it must be NAME=VALUE")),
        }
    }
    Ok(RunOptions {
        module: None,
        conf: whole(&typed.conf)?,
        kernel_config: whole(&typed.config)?,
        kernel_source: whole(&typed.kernel_source)?,
        directives,
        force: typed.has(Id::Force),
        force_install: typed.has(Id::Force) || typed.has(Id::RpmSafeUpgrade),
        force_version: typed.has(Id::ForceVersion),
        only_added: matches!(typed.command, Some(Command::Add | Command::Ldtarball)),
    })
}

/// A path that means the same wherever a program is started.
fn whole(path: &Path) -> Result<PathBuf, Refusal> {
    std::path::absolute(path).or_else(|why| refuse(2, format!("{}: {why}", path.display())))
}

/// `--dkmstree`, `--sourcetree` and `--installtree` come before what framework.conf says.
fn place_trees(machine: &mut Machine, typed: &Typed) -> Result<(), Refusal> {
    let framework = &mut machine.settings.framework;
    let places = [
        (&typed.dkms_tree, &mut framework.dkms_tree),
        (&typed.source_tree, &mut framework.source_tree),
        (&typed.install_tree, &mut framework.install_tree),
    ];
    for (said, tree) in places {
        if let Some(said) = said {
            *tree = Some(whole(said)?);
        }
    }
    machine.trees = machine.settings.placed(Trees::under(&machine.trees.root));
    Ok(())
}

/// The root as an absolute path without links: the kernel and dkms give such ones back.
fn absolute(root: &Path) -> io::Result<PathBuf> {
    env::current_dir()?.join(root).canonicalize()
}

//! The machine that a command line means: its root and trees, and what else is said of them.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use dkms_engine::asked::Asked;
use dkms_engine::distribution::Placement;
use dkms_engine::site::Site;
use dkms_engine::trees::Trees;
use dkms_initramfs::generator::Generator;

use crate::args::commands::Command;
use crate::args::options::Id;
use crate::args::parsed::Typed;
use crate::args::refusal::{Refusal, refuse};

/// Reads the machine's settings, and lays over them what was typed.
///
/// # Errors
/// [`Refusal`]: 2 for a root that is not there and for a number that is none, 4 for a machine
/// without an os-release file.
pub fn site(typed: &Typed) -> Result<Site, Refusal> {
    let root = typed.root.as_deref().unwrap_or(Path::new("/"));
    let root =
        absolute(root).or_else(|why| refuse(2, format!("--root {}: {why}", root.display())))?;
    // First of all, as with dkms: nothing is known of a machine without.
    Placement::read(&Trees::under(&root)).or_else(|why| refuse(4, why.to_string()))?;
    let mut site = Site::for_cli(&root);
    place_trees(&mut site, typed)?;
    site.asked = asked(typed)?;
    site.settings.framework.symlink_modules |= typed.has(Id::Symlink);
    site.settings.framework.modprobe_on_install |= typed.has(Id::Modprobe);
    site.depmod = !typed.has(Id::NoDepmod);
    // No image is made from kernels that are elsewhere.
    site.images = typed.install_tree.is_none() && Generator::of(&site).is_some();
    if let Some(file) = &typed.timings {
        site.settings.set_timings(file.clone());
    }
    if let Some(jobs) = typed.jobs.as_deref().filter(|jobs| !jobs.is_empty()) {
        match jobs.parse() {
            Ok(jobs) => site.settings.set_jobs(jobs),
            Err(_) => return refuse(2, format!("-j {jobs}: this is no number of jobs")),
        }
    }
    Ok(site)
}

/// What is asked to be otherwise than the files say.
fn asked(typed: &Typed) -> Result<Asked, Refusal> {
    let whole = |path: &Option<PathBuf>| path.as_deref().map(whole).transpose();
    let mut directives = Vec::new();
    for directive in &typed.directives {
        match directive.split_once('=') {
            Some((name, text)) => directives.push((name.to_owned(), text.to_owned())),
            None => return refuse(2, format!("--directive {directive}: it must be NAME=VALUE")),
        }
    }
    Ok(Asked {
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
fn place_trees(site: &mut Site, typed: &Typed) -> Result<(), Refusal> {
    let framework = &mut site.settings.framework;
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
    site.trees = site.settings.placed(Trees::under(&site.trees.root));
    Ok(())
}

/// The root as an absolute path without links: the kernel and dkms give such ones back.
fn absolute(root: &Path) -> io::Result<PathBuf> {
    env::current_dir()?.join(root).canonicalize()
}

//! The machine that a command line means: its root and trees, and what else is said of them.

use std::env;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use dkms_engine::asked::Asked;
use dkms_engine::distribution::Placement;
use dkms_engine::failure::Failure;
use dkms_engine::names::Arch;
use dkms_engine::site::Site;
use dkms_engine::trees::Trees;
use dkms_initramfs::generator::Generator;
use nix::sys::utsname::uname;
use nix::unistd::Uid;

use crate::args::commands::Command;
use crate::args::options::OptId;
use crate::args::parsed::Args;
use crate::args::refusal::refuse;
use crate::args::subject::Here;

/// Reads the machine's settings, and lays over them what was typed.
///
/// # Errors
/// [`Failure`]: 2 for a root that is not there and for a number that is none, 4 for a machine
/// without an os-release file.
pub fn site(args: &Args) -> Result<Site, Failure> {
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let root = absolute(root).or_else(|why| {
        refuse(2, invalid("--root", root.display(), &format!("a directory: {why}")))
    })?;
    // First of all, as with dkms: nothing is known of a machine without.
    Placement::read(&Trees::under(&root)).or_else(|why| refuse(4, why.to_string()))?;
    let mut site = Site::for_cli(&root);
    place_trees(&mut site, args)?;
    site.asked = asked(args)?;
    site.settings.framework.symlink_modules |= args.has(OptId::Symlink);
    site.settings.framework.modprobe_on_install |= args.has(OptId::Modprobe);
    site.depmod = !args.has(OptId::NoDepmod);
    // No image is made from kernels that are elsewhere.
    site.images = args.install_tree.is_none() && Generator::of(&site).is_some();
    if let Some(file) = &args.timings {
        site.settings.set_timings(file.clone());
    }
    if let Some(jobs) = args.jobs.as_deref().filter(|jobs| !jobs.is_empty()) {
        match jobs.parse() {
            Ok(jobs) => site.settings.set_jobs(jobs),
            Err(_) => return refuse(2, invalid("-j", jobs, "a number")),
        }
    }
    Ok(site)
}

/// What is asked to be otherwise than the files say.
fn asked(args: &Args) -> Result<Asked, Failure> {
    let whole = |path: &Option<PathBuf>| path.as_deref().map(whole).transpose();
    let mut directives = Vec::new();
    for directive in &args.directives {
        match directive.split_once('=') {
            Some((name, text)) => directives.push((name.to_owned(), text.to_owned())),
            None => return refuse(2, invalid("--directive", directive, "NAME=VALUE")),
        }
    }
    Ok(Asked {
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

/// The message for an option whose value cannot be used.
fn invalid(option: &str, value: impl Display, expected: &str) -> String {
    format!("invalid value for {option}: \"{value}\" (expected {expected})")
}

/// A path that means the same wherever a program is started.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).or_else(|why| refuse(2, format!("{}: {why}", path.display())))
}

/// `--dkmstree`, `--sourcetree` and `--installtree` come before what framework.conf says.
fn place_trees(site: &mut Site, args: &Args) -> Result<(), Failure> {
    let framework = &mut site.settings.framework;
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
    site.trees = site.settings.placed(Trees::under(&site.trees.root));
    Ok(())
}

/// Returns what the machine is for a command line without `-k` and `-a`.
pub fn here(site: &Site) -> Here {
    let kernel = uname().map(|it| it.release().to_string_lossy().into_owned());
    Here {
        kernel: kernel.unwrap_or_default(),
        arch: Arch::of_this_machine(),
        is_root: is_root(site),
        trees: site.trees.clone(),
    }
}

/// Whether the user is root. In another root the modes of the files decide who may change them.
pub fn is_root(site: &Site) -> bool {
    site.trees.root != Path::new("/") || Uid::effective().is_root()
}

/// The root as an absolute path without links: the kernel and dkms give such ones back.
fn absolute(root: &Path) -> io::Result<PathBuf> {
    env::current_dir()?.join(root).canonicalize()
}

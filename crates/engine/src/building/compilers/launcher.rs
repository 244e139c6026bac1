//! Starts every compiler through a launcher such as ccache or distcc.
//!
//! Kbuild, the MAKE lines of confs and configure scripts each name the compiler in their own way, but
//! all of them look it up in PATH. So a directory stands first in there with a program for each
//! compiler of the machine that starts it through the launcher, under its full path: a launcher that
//! looked it up again would find itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::building::compilers::compilers;
use crate::machine::Machine;
use crate::os::durable::{self, FileError};
use crate::os::process::{Environment, is_program, quoted};

/// Where launchers keep what is theirs, below `T/.cache`, unless their variables say otherwise: a
/// hook's home is not everybody's, and what is in our tree goes when we go.
const DIRECTORIES: [(&str, &str); 3] =
    [("CCACHE_DIR", "ccache"), ("SCCACHE_DIR", "sccache"), ("DISTCC_DIR", "distcc")];

/// More that suits builds of kernel modules, unless it is said otherwise.
const VARIABLES: [(&str, &str); 2] = [
    // The path of the headers names the kernel's release, which is no reason to compile.
    ("CCACHE_NOHASHDIR", "1"),
    // A server that a build started ends with it, perhaps while it works for another build.
    ("SCCACHE_IGNORE_SERVER_IO_ERROR", "1"),
];

/// Why there is no launcher although one is set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLauncher {
    /// There is no such program.
    #[error(
        "there is no program {0}, which [build] launcher in /etc/dkms/alpm-dkms.toml names: \
         compiling without it"
    )]
    Missing(String),
    /// The programs cannot be made.
    #[error("compiling without the launcher: {0}")]
    File(#[from] FileError),
}

/// Makes the programs for the builds of this run, or removes them if there is no launcher.
///
/// Nothing may be built meanwhile.
pub(crate) fn set_up(machine: &Machine) -> Result<(), NoLauncher> {
    let dir = machine.trees.launching_compilers();
    let made = make(machine, &dir);
    if !matches!(made, Ok(true)) {
        durable::remove_tree(&dir)?;
    }
    made.map(|_| ())
}

/// The environment of a build, with the launcher if one was set up. Comes last: nothing may be
/// put before it in PATH, and what the administrator set stays.
pub(crate) fn environment(machine: &Machine, mut env: Environment) -> Environment {
    let dir = machine.trees.launching_compilers();
    if !dir.is_dir() {
        return env;
    }
    for (name, dir) in DIRECTORIES {
        if env.get(name).is_none() {
            env = env.with(name, machine.trees.cache().join(dir));
        }
    }
    for (name, value) in VARIABLES {
        if env.get(name).is_none() {
            env = env.with(name, value);
        }
    }
    env.first_in_path(&dir)
}

/// Makes the programs; says whether there is a launcher.
fn make(machine: &Machine, dir: &Path) -> Result<bool, NoLauncher> {
    let Some((program, args)) = machine.settings.launcher().split_first() else { return Ok(false) };
    let found = find(program, &machine.env).ok_or_else(|| NoLauncher::Missing(program.clone()))?;
    let found = found.to_string_lossy().into_owned();
    let launcher: Vec<String> =
        std::iter::once(&found).chain(args).map(|word| quoted(word)).collect();
    for (_, directory) in DIRECTORIES {
        // distcc does not make its own, and works without its hosts then.
        durable::create_dirs(&machine.trees.cache().join(directory))?;
    }
    durable::create_dirs(dir)?;
    let compilers = compilers(&machine.env);
    for (name, compiler) in &compilers {
        let compiler = quoted(&compiler.to_string_lossy());
        let text = format!(
            "#!/bin/sh\n# Put first in PATH by alpm-dkms: [build] launcher in \
             /etc/dkms/alpm-dkms.toml.\nexec {} {compiler} \"$@\"\n",
            launcher.join(" ")
        );
        write_program(&dir.join(name), &text)?;
    }
    let made: BTreeSet<&str> = compilers.keys().map(String::as_str).collect();
    for entry in fs::read_dir(dir).map_err(FileError::when("list", dir))?.flatten() {
        if !entry.file_name().to_str().is_some_and(|name| made.contains(name)) {
            durable::remove_tree(&entry.path())?;
        }
    }
    Ok(true)
}

/// A program by its path or by its name in PATH.
fn find(program: &str, env: &Environment) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_program(path));
    }
    env.find(program)
}

/// Writes a program, unless it stands there as it should be.
fn write_program(path: &Path, text: &str) -> Result<(), FileError> {
    if is_program(path) && fs::read_to_string(path).is_ok_and(|is| is == text) {
        return Ok(());
    }
    durable::write_program(path, text)
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;
    use crate::os::process::Program;

    /// A machine with a gcc-16 and a launcher.
    fn machine(launcher: &str) -> (TestRoot, Machine) {
        let root = TestRoot::new();
        root.program("gcc-16", "echo compiled by \"$0\" \"$@\"");
        root.program("launcher", "echo launched; exec \"$@\"");
        root.write("etc/dkms/alpm-dkms.toml", format!("[build]\nlauncher = \"{launcher}\"\n"));
        let mut machine = Machine::for_hook(root.path());
        machine.env = machine.env.first_in_path(&root.programs());
        (root, machine)
    }

    fn compile(machine: &Machine) -> String {
        let env = environment(machine, machine.env.clone());
        let ended = Program::new("gcc-16", &env).args(["-c", "it's a.c"]).run().unwrap();
        String::from_utf8(ended.output).unwrap()
    }

    #[test]
    fn every_compiler_is_started_through_the_launcher() {
        let (root, machine) = machine("launcher --with args");
        set_up(&machine).unwrap();
        let gcc = root.programs().join("gcc-16").display().to_string();
        assert_eq!(root.calls("launcher"), [""; 0]);
        assert_eq!(compile(&machine), "launched\n");
        assert_eq!(root.calls("launcher"), [format!("--with args {gcc} -c it's a.c")]);
    }

    #[test]
    fn what_leads_to_a_launcher_is_no_compiler() {
        let (root, mut machine) = machine("launcher");
        let masquerade = root.programs().join("masquerade");
        fs::create_dir(&masquerade).unwrap();
        let ccache = root.program("ccache", "exit 1");
        std::os::unix::fs::symlink(ccache, masquerade.join("gcc-16")).unwrap();
        machine.env = machine.env.first_in_path(&masquerade);
        set_up(&machine).unwrap();
        let gcc = root.programs().join("gcc-16").display().to_string();
        assert_eq!(compile(&machine), format!("launched\ncompiled by {gcc} -c it's a.c\n"));
    }

    #[test]
    fn without_its_launcher_a_compiler_is_started_as_ever() {
        let (root, mut machine) = machine("launcher");
        set_up(&machine).unwrap();
        fs::remove_file(root.programs().join("launcher")).unwrap();
        let said = set_up(&machine).unwrap_err().to_string();
        assert!(said.starts_with("there is no program launcher, which [build] launcher"), "{said}");
        assert!(compile(&machine).starts_with("compiled by"));

        root.write("etc/dkms/alpm-dkms.toml", "");
        machine.settings = Machine::for_hook(root.path()).settings;
        set_up(&machine).unwrap();
        assert!(!machine.trees.launching_compilers().exists());
    }

    #[test]
    fn a_compiler_that_is_gone_has_no_program() {
        let (root, machine) = machine("launcher");
        // Versions that the machine itself will not have.
        let (old, new) = ("gcc-0.1", "gcc-0.2");
        root.program(old, "");
        set_up(&machine).unwrap();
        let dir = machine.trees.launching_compilers();
        assert!(dir.join(old).exists());
        fs::rename(root.programs().join(old), root.programs().join(new)).unwrap();
        set_up(&machine).unwrap();
        assert!(!dir.join(old).exists() && dir.join(new).exists());
    }

    #[test]
    fn what_is_set_stays() {
        let (_root, machine) = machine("launcher");
        set_up(&machine).unwrap();
        let env = environment(&machine, machine.env.clone().with("CCACHE_DIR", "/mine"));
        assert_eq!(env.get("CCACHE_DIR").unwrap(), "/mine");
        let ours = machine.trees.cache().join("distcc");
        assert_eq!(env.get("DISTCC_DIR").unwrap(), ours.as_os_str());
    }
}

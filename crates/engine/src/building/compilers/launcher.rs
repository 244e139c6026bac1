//! Runs every compiler through a launcher such as ccache or distcc.
//!
//! Kbuild, the MAKE lines of confs and configure scripts name the compiler in different ways, but
//! all of them search PATH for it. Therefore a directory with a script for each compiler comes
//! first in PATH. Each script runs the launcher with the full path of the compiler: a launcher that
//! searched PATH would find the script again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::building::compilers::compilers;
use crate::machine::Machine;
use crate::os::durable::{self, FileError};
use crate::os::process::{Environment, is_program, quoted};

/// The environment variables that name the data directories of launchers, and the names of these
/// directories in `T/.cache`.
///
/// Directories in `T/.cache` do not depend on a home directory, and are removed together with the
/// dkms tree.
const DIRECTORIES: [(&str, &str); 2] = [("CCACHE_DIR", "ccache"), ("DISTCC_DIR", "distcc")];

/// The variable that makes ccache ignore the working directory. The kernel release in the path of
/// the headers must not cause cache misses.
const NO_HASH_DIR: &str = "CCACHE_NOHASHDIR";

/// The reason why the configured launcher cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLauncher {
    /// The launcher with this path or name does not exist.
    #[error(
        "{0}: launcher not found ([build] launcher in /etc/dkms/alpm-dkms.toml); \
         compiling without it"
    )]
    Missing(String),
    /// The launcher with this path or name compiles in a server. All builds of the machine share
    /// the server, but it sees the build directory of at most one of them, so it could compile the
    /// files of another build.
    #[error(
        "{0}: not supported as launcher: its server would mix up the files of different builds \
         ([build] launcher in /etc/dkms/alpm-dkms.toml); compiling without it"
    )]
    Server(String),
    /// The compiler scripts cannot be written.
    #[error("cannot set up the launcher: {0}; compiling without it")]
    File(#[from] FileError),
}

/// Creates the compiler scripts for the builds of this run. Removes old scripts if no launcher can
/// be used.
///
/// Must not be called while a build runs.
pub(crate) fn set_up(machine: &Machine) -> Result<(), NoLauncher> {
    let dir = machine.trees.launching_compilers();
    let made = make(machine, &dir);
    if !matches!(made, Ok(true)) {
        durable::remove_tree(&dir)?;
    }
    made.map(|_| ())
}

/// Adds the launcher to the environment of a build, if it has been set up. Changes PATH, and sets
/// other variables only if they are not set yet.
///
/// The caller must not change the environment afterwards, so that the scripts come first in PATH.
pub(crate) fn environment(machine: &Machine, mut env: Environment) -> Environment {
    let dir = machine.trees.launching_compilers();
    if !dir.is_dir() {
        return env;
    }
    let directories = DIRECTORIES.map(|(name, dir)| (name, machine.trees.cache().join(dir)));
    for (name, value) in directories.into_iter().chain([(NO_HASH_DIR, "1".into())]) {
        if env.get(name).is_none() {
            env = env.with(name, value);
        }
    }
    env.first_in_path(&dir)
}

/// Creates the compiler scripts in `dir`, and removes scripts of compilers that no longer exist.
/// Returns false, and changes nothing, if no launcher is configured.
fn make(machine: &Machine, dir: &Path) -> Result<bool, NoLauncher> {
    let Some((program, args)) = machine.settings.launcher().split_first() else { return Ok(false) };
    let found = find(program, &machine.env).ok_or_else(|| NoLauncher::Missing(program.clone()))?;
    if found.canonicalize().is_ok_and(|path| path.ends_with("sccache")) {
        return Err(NoLauncher::Server(program.clone()));
    }
    let found = found.to_string_lossy().into_owned();
    let launcher: Vec<String> =
        std::iter::once(&found).chain(args).map(|word| quoted(word)).collect();
    for (_, directory) in DIRECTORIES {
        // distcc does not create its directory, and uses no other hosts if the directory is
        // missing.
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

/// Returns the path of `program`, which is itself a path or the name of a program in PATH. Returns
/// `None` if the program does not exist.
fn find(program: &str, env: &Environment) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_program(path));
    }
    env.find(program)
}

/// Writes a program to `path`, unless `path` already contains the same text.
fn write_program(path: &Path, text: &str) -> Result<(), FileError> {
    if is_program(path) && fs::read_to_string(path).is_ok_and(|is| is == text) {
        return Ok(());
    }
    durable::write_program(path, text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;
    use crate::os::process::Program;

    /// Returns a machine with a fake `gcc-16` and a fake `launcher` in PATH. The parameter is the
    /// command line in the setting `launcher`.
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
    fn compilers_run_through_the_launcher() {
        let (root, machine) = machine("launcher --with args");
        set_up(&machine).unwrap();
        let gcc = root.programs().join("gcc-16").display().to_string();
        assert_eq!(root.calls("launcher"), [""; 0]);
        assert_eq!(compile(&machine), "launched\n");
        assert_eq!(root.calls("launcher"), [format!("--with args {gcc} -c it's a.c")]);
    }

    #[test]
    fn links_to_launchers_are_not_compilers() {
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
    fn compilers_run_directly_if_the_launcher_is_missing() {
        let (root, mut machine) = machine("launcher");
        set_up(&machine).unwrap();
        fs::remove_file(root.programs().join("launcher")).unwrap();
        let said = set_up(&machine).unwrap_err().to_string();
        assert!(said.starts_with("launcher: launcher not found ([build] launcher in"), "{said}");
        assert!(compile(&machine).starts_with("compiled by"));

        root.write("etc/dkms/alpm-dkms.toml", "");
        machine.settings = Machine::for_hook(root.path()).settings;
        set_up(&machine).unwrap();
        assert!(!machine.trees.launching_compilers().exists());
    }

    #[rstest]
    #[case::by_name("sccache")]
    #[case::through_a_link("cache --with args")]
    fn launchers_that_compile_in_a_server_are_not_used(#[case] launcher: &str) {
        let (root, machine) = machine(launcher);
        let sccache = root.program("sccache", "exit 1");
        std::os::unix::fs::symlink(sccache, root.programs().join("cache")).unwrap();
        let said = set_up(&machine).unwrap_err().to_string();
        let name = launcher.split(' ').next().unwrap();
        assert!(said.starts_with(&format!("{name}: not supported as launcher: ")), "{said}");
        assert!(compile(&machine).starts_with("compiled by"));
    }

    #[test]
    fn scripts_of_removed_compilers_are_removed() {
        let (root, machine) = machine("launcher");
        // Versions that do not exist on the machine that runs the test.
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
    fn variables_that_are_already_set_are_kept() {
        let (_root, machine) = machine("launcher");
        set_up(&machine).unwrap();
        let env = environment(&machine, machine.env.clone().with("CCACHE_DIR", "/mine"));
        assert_eq!(env.get("CCACHE_DIR").unwrap(), "/mine");
        let ours = machine.trees.cache().join("distcc");
        assert_eq!(env.get("DISTCC_DIR").unwrap(), ours.as_os_str());
    }
}

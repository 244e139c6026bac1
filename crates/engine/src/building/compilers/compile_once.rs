//! Puts `compile-once` before the compilers in PATH, so that the modules of a run share its
//! results.
//!
//! A directory that comes first in PATH contains a copy of the program for each compiler, under the
//! name of the compiler. If a launcher is configured, `compile-once` is not used.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::building::compilers::compilers;
use crate::machine::Machine;
use crate::os::durable::{self, FileError};
use crate::os::process::{Environment, is_program};

/// The environment variable that names the directory for the results of `compile-once`.
const RESULTS: &str = "ALPM_DKMS_ANSWERS";

/// The environment variable that makes `compile-once` precompile the headers of `.mod.c` files. It
/// is set if a run builds at least [`MANY`] objects for the kernel.
const MANY_OBJECTS: &str = "ALPM_DKMS_MANY_OBJECTS";

/// The minimum number of objects for a kernel with which precompiled headers save time.
///
/// Precompiling the headers takes as long as compiling five `.mod.c` files. It then saves four
/// fifths of the time that each of these files takes.
const MANY: usize = 8;

/// The minimum free space, in bytes, for precompiling headers. The precompiled headers take about
/// 70 MB for each kernel.
const MIN_SPACE: u64 = 1 << 30;

/// Creates the copies of `compile-once` for the builds of this run. Deletes the results of an
/// earlier run, since headers may have changed.
///
/// Must not be called while a build runs. If `compile-once` is disabled or not installed, creates
/// no copies, so that the compilers run directly.
pub(crate) fn set_up(machine: &Machine) -> Result<(), FileError> {
    let dir = machine.trees.sharing_compilers();
    durable::remove_tree(&dir)?;
    let program = &machine.tools.compile_once;
    if !machine.settings.compile_once() || !is_program(program) {
        return Ok(());
    }
    let results = machine.trees.shared_results();
    durable::create_dirs(&results)?;
    for (name, compiler) in compilers(&machine.env) {
        let place = dir.join(name);
        copy_program(program, &compiler, &place).map_err(FileError::when("write", &place))?;
    }
    Ok(())
}

/// Copies `program` to `place`, and sets the modification time of the copy to that of `compiler`.
///
/// A conf may set `CC="ccache gcc"`, and ccache detects a changed compiler by the modification time
/// of the program that it runs (ccache(1), `compiler_check`).
fn copy_program(program: &Path, compiler: &Path, place: &Path) -> io::Result<()> {
    fs::copy(program, place)?;
    File::options().write(true).open(place)?.set_modified(fs::metadata(compiler)?.modified()?)
}

/// Adds `compile-once` to the environment of a build, if it has been set up.
///
/// A build with `keeps_symbols` shares no results, since debug symbols contain the path of the
/// build directory. `objects` is the number of objects that the run builds for the kernel, or 0 if
/// the compiler cannot use precompiled headers.
pub(crate) fn environment(
    machine: &Machine,
    env: Environment,
    keeps_symbols: bool,
    objects: usize,
) -> Environment {
    let results = machine.trees.shared_results();
    if keeps_symbols || !results.is_dir() {
        return env;
    }
    let many =
        objects >= MANY && durable::free_space(&results).is_some_and(|room| room >= MIN_SPACE);
    let env = env.with(RESULTS, results).first_in_path(&machine.trees.sharing_compilers());
    if many { env.with(MANY_OBJECTS, "1") } else { env.without(MANY_OBJECTS) }
}

/// Removes the copies of `compile-once` and its results after the last build. If that fails, the
/// next run removes them.
pub(crate) fn forget(machine: &Machine) {
    let _ = fs::remove_dir_all(machine.trees.sharing_compilers());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testroot::TestRoot;

    use super::*;
    use crate::os::process::Program;

    /// Sets up `compile-once` on a machine with a fake `gcc-16` and a fake `compile-once`, and
    /// returns the machine.
    fn machine(settings: &str) -> (TestRoot, Machine) {
        let root = TestRoot::new();
        root.program("gcc-16", "echo compiled");
        root.write("etc/dkms/alpm-dkms.toml", settings);
        let mut machine = Machine::for_hook(root.path());
        machine.tools.compile_once =
            root.program("compile-once", "echo \"$(basename \"$0\") $ALPM_DKMS_ANSWERS\"");
        machine.env = machine.env.first_in_path(&root.programs());
        set_up(&machine).unwrap();
        (root, machine)
    }

    fn compile(machine: &Machine, keeps_symbols: bool) -> String {
        let env = environment(machine, machine.env.clone(), keeps_symbols, 1);
        let ended = Program::new("gcc-16", &env).run().unwrap();
        String::from_utf8(ended.output).unwrap()
    }

    #[test]
    fn compile_once_runs_unless_symbols_are_kept() {
        let (_root, machine) = machine("");
        let answers = machine.trees.shared_results();
        assert_eq!(compile(&machine, false), format!("gcc-16 {}\n", answers.display()));
        assert_eq!(compile(&machine, true), "compiled\n");
    }

    #[test]
    fn headers_are_precompiled_for_many_objects() {
        let (_root, machine) = machine("");
        let set = |objects| {
            let env = environment(&machine, machine.env.clone(), false, objects);
            let ended = Program::new("sh", &env).args(["-c", "echo $ALPM_DKMS_MANY_OBJECTS"]).run();
            String::from_utf8(ended.unwrap().output).unwrap()
        };
        assert_eq!([MANY - 1, MANY].map(set), ["\n", "1\n"]);
    }

    #[test]
    fn copies_have_the_compilers_modification_time() {
        let (root, machine) = machine("");
        let compiler = File::open(root.programs().join("gcc-16")).unwrap();
        let upgraded = compiler.metadata().unwrap().modified().unwrap() + Duration::from_secs(9);
        compiler.set_modified(upgraded).unwrap();
        set_up(&machine).unwrap();
        let found = fs::metadata(machine.trees.sharing_compilers().join("gcc-16")).unwrap();
        assert_eq!(found.modified().unwrap(), upgraded);
    }

    #[test]
    fn results_of_an_earlier_run_are_deleted() {
        let (_root, machine) = machine("");
        fs::write(machine.trees.shared_results().join("answer"), "").unwrap();
        set_up(&machine).unwrap();
        assert_eq!(fs::read_dir(machine.trees.shared_results()).unwrap().count(), 0);
        forget(&machine);
        assert!(!machine.trees.sharing_compilers().exists());
        assert_eq!(compile(&machine, false), "compiled\n");
    }

    #[test]
    fn compile_once_is_not_set_up_with_a_launcher_or_if_disabled() {
        for settings in ["launcher = \"env\"", "compile_once = false"] {
            let (_root, machine) = machine(&format!("[build]\n{settings}\n"));
            assert_eq!(compile(&machine, false), "compiled\n", "{settings}");
        }
    }

    #[test]
    fn compile_once_is_not_set_up_if_it_is_not_installed() {
        let (_root, mut machine) = machine("");
        machine.tools.compile_once = "/no/compile-once".into();
        set_up(&machine).unwrap();
        assert_eq!(compile(&machine, false), "compiled\n");
    }
}

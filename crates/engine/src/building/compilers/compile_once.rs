//! Puts `compile-once` in the place of the compilers, so that the modules of a run share its results.
//!
//! A copy of the program stands first in PATH under the name of each compiler. Where a launcher is
//! set, that is used instead.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::building::compilers::compilers;
use crate::machine::Machine;
use crate::os::durable::{self, FileError};
use crate::os::process::{Environment, is_program};

/// The variable with the directory in which `compile-once` keeps results.
const RESULTS: &str = "ALPM_DKMS_ANSWERS";

/// The variable that is set where many objects are made for the kernel, so that it pays to compile
/// the headers of modules' own files beforehand.
const MANY_OBJECTS: &str = "ALPM_DKMS_MANY_OBJECTS";

/// Compiled beforehand, the headers save four fifths of the time of each object's own file; to do
/// that takes as long as five of these.
const MANY: usize = 8;

/// They have some 70 MB for each kernel. With less room than this, in bytes, there are none.
const ROOMY: u64 = 1 << 30;

/// Makes the copies for the builds of this run, without results: headers may have changed.
///
/// Nothing may be built meanwhile. Without our program, say when only `dkms` was copied to a
/// machine, every compiler is started as ever.
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
        stand_in(program, &compiler, &place).map_err(FileError::when("write", &place))?;
    }
    Ok(())
}

/// Puts a copy of our program where it is found before the compiler.
///
/// Not a link: it is as old as the compiler, since a conf may say `CC="ccache gcc"`, and ccache
/// knows by the time of what it starts whether that is still the compiler of its results
/// (ccache(1), `compiler_check`).
fn stand_in(program: &Path, compiler: &Path, place: &Path) -> io::Result<()> {
    fs::copy(program, place)?;
    File::options().write(true).open(place)?.set_modified(fs::metadata(compiler)?.modified()?)
}

/// Returns the environment of a build that shares compiler results, if that was set up. An object
/// that `keeps_symbols` names the directory of its build in them, and shares nothing. `objects` is
/// how many the run makes for the kernel by a compiler that can compile headers beforehand.
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
    let many = objects >= MANY && durable::room(&results).is_some_and(|room| room >= ROOMY);
    let env = env.with(RESULTS, results).first_in_path(&machine.trees.sharing_compilers());
    if many { env.with(MANY_OBJECTS, "1") } else { env.without(MANY_OBJECTS) }
}

/// Removes the results when all is built. What cannot be removed goes at the next run.
pub(crate) fn forget(machine: &Machine) {
    let _ = fs::remove_dir_all(machine.trees.sharing_compilers());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testroot::TestRoot;

    use super::*;
    use crate::os::process::Program;

    /// A machine with a gcc-16 and a `compile-once`, set up.
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
    fn our_program_is_in_the_place_of_a_compiler() {
        let (_root, machine) = machine("");
        let answers = machine.trees.shared_results();
        assert_eq!(compile(&machine, false), format!("gcc-16 {}\n", answers.display()));
        assert_eq!(compile(&machine, true), "compiled\n");
    }

    #[test]
    fn headers_are_compiled_beforehand_for_many_objects() {
        let (_root, machine) = machine("");
        let set = |objects| {
            let env = environment(&machine, machine.env.clone(), false, objects);
            let ended = Program::new("sh", &env).args(["-c", "echo $ALPM_DKMS_MANY_OBJECTS"]).run();
            String::from_utf8(ended.unwrap().output).unwrap()
        };
        assert_eq!([MANY - 1, MANY].map(set), ["\n", "1\n"]);
    }

    #[test]
    fn our_program_is_as_old_as_the_compiler() {
        let (root, machine) = machine("");
        let compiler = File::open(root.programs().join("gcc-16")).unwrap();
        let upgraded = compiler.metadata().unwrap().modified().unwrap() + Duration::from_secs(9);
        compiler.set_modified(upgraded).unwrap();
        set_up(&machine).unwrap();
        let found = fs::metadata(machine.trees.sharing_compilers().join("gcc-16")).unwrap();
        assert_eq!(found.modified().unwrap(), upgraded);
    }

    #[test]
    fn each_run_begins_without_results() {
        let (_root, machine) = machine("");
        fs::write(machine.trees.shared_results().join("answer"), "").unwrap();
        set_up(&machine).unwrap();
        assert_eq!(fs::read_dir(machine.trees.shared_results()).unwrap().count(), 0);
        forget(&machine);
        assert!(!machine.trees.sharing_compilers().exists());
        assert_eq!(compile(&machine, false), "compiled\n");
    }

    #[test]
    fn not_if_a_launcher_has_its_place_or_it_is_not_wanted() {
        for settings in ["launcher = \"env\"", "compile_once = false"] {
            let (_root, machine) = machine(&format!("[build]\n{settings}\n"));
            assert_eq!(compile(&machine, false), "compiled\n", "{settings}");
        }
    }

    #[test]
    fn not_without_our_program() {
        let (_root, mut machine) = machine("");
        machine.tools.compile_once = "/no/compile-once".into();
        set_up(&machine).unwrap();
        assert_eq!(compile(&machine, false), "compiled\n");
    }
}

//! Stands in a compiler's place during builds, and has done once what comes out the same for every
//! module of a kernel.
//!
//! A copy of it has the compiler's name and is found before the compiler in PATH. Answers are kept
//! in the directory `ALPM_DKMS_ANSWERS`, which lies beside that copy; without it, and whenever
//! anything is not as expected, the compiler is started as if nothing stood before it.

mod answers;
mod arguments;
mod module_file;
mod preamble;
mod question;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use answers::Answers;
use arguments::Arguments;
use module_file::ModuleFile;
use preamble::Preamble;
use question::Question;

/// As a shell has it: a program cannot be run, there is none, and by which signal one ended.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
const SIGNALLED: i32 = 128;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let called = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    let name = Path::new(&called).file_name().unwrap_or_default();
    let answers = env::var_os("ALPM_DKMS_ANSWERS").map(PathBuf::from);
    let Some(compiler) = Compiler::find(name, answers.as_deref()) else {
        complain(&format!("{}: there is no such compiler in PATH", name.display()));
        return ExitCode::from(NOT_FOUND);
    };
    if let Some(dir) = answers
        && let Some(read) = Arguments::read(&arguments)
    {
        if let Some(question) = Question::of(&read)
            && let Some(name) = question.name(&compiler.path)
        {
            return compiler.ask_once(&Answers::of(dir), &question, &name, &arguments);
        }
        if env::var_os("ALPM_DKMS_MANY_OBJECTS").is_some()
            && let Some(file) = ModuleFile::of(&read)
            && let Some(name) = file.name(&compiler.path)
        {
            return compiler.compile(&Preamble::of(dir, &name, &file), &arguments);
        }
    }
    compiler.become_it(&arguments)
}

/// The compiler in whose place we stand.
struct Compiler {
    path: PathBuf,
    /// PATH without us: a program such as ccache, found under the compiler's name, looks there for
    /// the next one of that name, and would find us again.
    search_path: OsString,
}

impl Compiler {
    fn find(name: &OsStr, answers: Option<&Path>) -> Option<Self> {
        // A chroot may be without /proc, which tells what was started.
        let ours = env::current_exe().ok().or(answers.map(Path::to_owned))?;
        let ours = fs::canonicalize(ours.parent()?).ok()?;
        let is_other = |dir: &PathBuf| fs::canonicalize(dir).ok().as_ref() != Some(&ours);
        let path = env::var_os("PATH")?;
        let dirs: Vec<PathBuf> = env::split_paths(&path).filter(is_other).collect();
        let path = dirs.iter().map(|dir| dir.join(name)).find(|path| is_program(path))?;
        Some(Self { path, search_path: env::join_paths(dirs).ok()? })
    }

    #[expect(clippy::disallowed_methods, reason = "make bounds it, and we must stay small")]
    fn command(&self, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).env("PATH", &self.search_path);
        command
    }

    fn become_it(&self, arguments: &[OsString]) -> ExitCode {
        self.cannot_run(&self.command(arguments).exec())
    }

    fn ask_once(
        &self,
        answers: &Answers,
        question: &Question,
        name: &str,
        arguments: &[OsString],
    ) -> ExitCode {
        if let Some(said) = answers.give(name, question) {
            return repeat(&said);
        }
        let said = match self.command(arguments).output() {
            Ok(said) => said,
            Err(error) => return self.cannot_run(&error),
        };
        // Not kept, it is only asked again.
        let _ = answers.keep(name, question, &said);
        repeat(&said)
    }

    /// Compiles a module's own file with headers that are compiled already, if they are.
    fn compile(&self, preamble: &Preamble<'_>, arguments: &[OsString]) -> ExitCode {
        let start = |arguments: &[OsString]| self.command(arguments).output();
        if preamble.is_there() {
            if let Some(said) = preamble.compile(start) {
                return repeat(&said);
            }
        } else if preamble.is_ours_to_make() {
            let said = match start(arguments) {
                Ok(said) => said,
                Err(error) => return self.cannot_run(&error),
            };
            if said.status.success() {
                // Not made, all are compiled as ever.
                let _ = preamble.make(start);
            }
            return repeat(&said);
        }
        self.become_it(arguments)
    }

    fn cannot_run(&self, error: &io::Error) -> ExitCode {
        complain(&format!("cannot run {}: {error}", self.path.display()));
        ExitCode::from(CANNOT_RUN)
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Says what the compiler said, and ends as it did. Nobody may be listening any more.
fn repeat(said: &Output) -> ExitCode {
    let _ = io::stdout().write_all(&said.stdout);
    let _ = io::stderr().write_all(&said.stderr);
    let signal = said.status.signal().map(|signal| SIGNALLED + signal);
    let status = said.status.code().or(signal);
    ExitCode::from(status.and_then(|status| u8::try_from(status).ok()).unwrap_or(1))
}

fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "alpm-dkms: {what}");
}

//! A compiler wrapper that shares probe results and precompiled headers between the modules of one
//! run.
//!
//! The engine copies this program under the compiler's name to a directory that comes first in
//! PATH. The variable `ALPM_DKMS_ANSWERS` names a directory for results, next to the copy. If the
//! variable is not set, or if a call is not exactly as expected, the program runs the compiler with
//! unchanged arguments.

mod arguments;
mod mod_c_file;
mod precompiled_headers;
mod shared_call;
mod shared_results;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use arguments::Arguments;
use mod_c_file::ModCFile;
use precompiled_headers::PrecompiledHeaders;
use shared_call::SharedCall;
use shared_results::SharedResults;

/// The exit code for a compiler that cannot be run, as in a shell.
const CANNOT_RUN: u8 = 126;
/// The exit code for a compiler that does not exist, as in a shell.
const NOT_FOUND: u8 = 127;
/// The number added to a signal number for the exit code of a killed compiler, as in a shell.
const SIGNALLED: i32 = 128;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let called = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    let name = Path::new(&called).file_name().unwrap_or_default();
    let results = env::var_os("ALPM_DKMS_ANSWERS").map(PathBuf::from);
    let Some(compiler) = Compiler::find(name, results.as_deref()) else {
        complain(&format!("{}: no such compiler in PATH", name.display()));
        return ExitCode::from(NOT_FOUND);
    };
    if let Some(dir) = results
        && let Some(read) = Arguments::read(&arguments)
    {
        if let Some(call) = SharedCall::of(&read)
            && let Some(key) = call.key(&compiler.path)
        {
            return compiler.run_once(&SharedResults::in_dir(dir), &call, &key, &arguments);
        }
        if env::var_os("ALPM_DKMS_MANY_OBJECTS").is_some()
            && let Some(file) = ModCFile::of(&read)
            && let Some(key) = file.headers_key(&compiler.path)
        {
            return compiler.compile(&PrecompiledHeaders::of(dir, &key, &file), &arguments);
        }
    }
    compiler.exec_compiler(&arguments)
}

/// The compiler that this program wraps.
struct Compiler {
    path: PathBuf,
    /// PATH without the directory of this program.
    ///
    /// A program such as ccache, called by the compiler's name, searches PATH for the next program
    /// with that name, and would otherwise find this program again.
    search_path: OsString,
}

impl Compiler {
    fn find(name: &OsStr, results: Option<&Path>) -> Option<Self> {
        // `current_exe` needs /proc, which a chroot may lack.
        let ours = env::current_exe().ok().or(results.map(Path::to_owned))?;
        let ours = fs::canonicalize(ours.parent()?).ok()?;
        let is_other = |dir: &PathBuf| fs::canonicalize(dir).ok().as_ref() != Some(&ours);
        let path = env::var_os("PATH")?;
        let dirs: Vec<PathBuf> = env::split_paths(&path).filter(is_other).collect();
        let path = dirs.iter().map(|dir| dir.join(name)).find(|path| is_program(path))?;
        Some(Self { path, search_path: env::join_paths(dirs).ok()? })
    }

    #[expect(clippy::disallowed_methods, reason = "make limits the time; this must stay small")]
    fn command(&self, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).env("PATH", &self.search_path);
        command
    }

    fn exec_compiler(&self, arguments: &[OsString]) -> ExitCode {
        self.cannot_run(&self.command(arguments).exec())
    }

    fn run_once(
        &self,
        results: &SharedResults,
        call: &SharedCall,
        key: &str,
        arguments: &[OsString],
    ) -> ExitCode {
        if let Some(said) = results.restore(key, call) {
            return repeat(&said);
        }
        let said = match self.command(arguments).output() {
            Ok(said) => said,
            Err(error) => return self.cannot_run(&error),
        };
        // If the result cannot be stored, the next module runs the compiler again.
        let _ = results.store(key, call, &said);
        repeat(&said)
    }

    /// Compiles a module's `.mod.c`, using the precompiled headers if they exist.
    ///
    /// If they do not exist, exactly one call creates them.
    fn compile(&self, headers: &PrecompiledHeaders<'_>, arguments: &[OsString]) -> ExitCode {
        let start = |arguments: &[OsString]| self.command(arguments).output();
        if headers.exist() {
            if let Some(said) = headers.compile(start) {
                return repeat(&said);
            }
        } else if headers.claim() {
            let said = match start(arguments) {
                Ok(said) => said,
                Err(error) => return self.cannot_run(&error),
            };
            if said.status.success() {
                // If this fails, every file is compiled without precompiled headers.
                let _ = headers.make(start);
            }
            return repeat(&said);
        }
        self.exec_compiler(arguments)
    }

    fn cannot_run(&self, error: &io::Error) -> ExitCode {
        complain(&format!("cannot run {}: {error}", self.path.display()));
        ExitCode::from(CANNOT_RUN)
    }
}

/// Returns true if `path` is an executable file.
///
/// A copy of the engine's function. This program does not link the engine, because it runs for
/// every compiler call and must start fast.
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Writes the compiler's output, and returns the compiler's exit code. Write errors are ignored.
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

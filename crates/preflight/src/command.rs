//! The command `dkms preflight`: tries the modules outside a transaction.

use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use alpm_hook::lines::LineWriter;
use alpm_hook::package_query;
use dkms_engine::facts::running_pacman;
use dkms_engine::machine::{Lock, Machine};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::arriving::{self, Arriving};
use crate::not_tried::NotTried;
use crate::report::Report;
use crate::session::{exit_code, run_worker};
use crate::supervisor::{Ending, Supervisor};
use crate::verdict::Verdict;
use crate::worker::{Purpose, WorkerJob};

/// The flag of the hook's program for [`run`].
pub const COMMAND: &str = "--command";

/// The hook's program.
const PROGRAM: &str = "/usr/lib/alpm-dkms/dkms-preflight";

/// The programs that give a command idle CPU and I/O priority (chrt(1), ionice(1)).
const IDLE: [&str; 6] = ["chrt", "--idle", "0", "ionice", "--class", "idle"];

/// The exit code if a module works now and would not afterwards.
pub(crate) const REGRESSION: u8 = 11;

/// The question that `dkms preflight` asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The package files to try, as absolute paths.
    pub files: Vec<PathBuf>,
    /// Whether to print JSON.
    pub json: bool,
    /// Whether only to print what would be tried.
    pub dry_run: bool,
}

impl Question {
    /// Replaces this process by one that answers the question. With `idle`, it has idle CPU and I/O
    /// priority; with `quiet`, it prints nothing. Returns the reason if that fails.
    ///
    /// The supervisor of a worker must have only one thread, and this process may have more.
    #[must_use]
    pub fn exec(&self, idle: bool, quiet: bool) -> NotTried {
        let why = match self.program(idle, quiet) {
            Ok(mut program) => program.exec(),
            Err(why) => why,
        };
        NotTried::new(format!("cannot start {PROGRAM}: {why}"))
    }

    #[expect(clippy::disallowed_methods, reason = "it replaces this process")]
    fn program(&self, idle: bool, quiet: bool) -> io::Result<Command> {
        let mut question = File::from(memfd_create("question", MFdFlags::MFD_CLOEXEC)?);
        question.write_all(&serde_json::to_vec(self)?)?;
        question.seek(SeekFrom::Start(0))?;
        let before = if idle { &IDLE[..] } else { &[] };
        let mut words = before.iter().chain(&[PROGRAM, COMMAND]);
        let mut command = Command::new(words.next().unwrap_or(&PROGRAM));
        command.args(words).stdin(question);
        if quiet {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Ok(command)
    }

    fn answer(&self, root: &Path) -> Result<u8, NotTried> {
        let machine = Machine::for_hook(root);
        if machine.is_within_run() {
            return Err(NotTried::new("another run of alpm-dkms started this command"));
        }
        if let Some(pacman) = running_pacman(&machine) {
            return Err(NotTried::new(format!("pacman is running (process {pacman})")));
        }
        let mut arriving = self.arriving(root)?;
        // The rest of the toolchain stays as it is.
        let packages = &arriving.packages;
        arriving.toolchain.retain(|tool| packages.iter().any(|it| it.name == tool.name));
        if arriving.targets().is_empty() {
            let nothing =
                "nothing to try: these packages contain no kernel, headers or module source";
            self.print(nothing, &Verdict::default());
            return Ok(0);
        }
        if self.dry_run {
            let packages = arriving.packages.iter().filter(|package| !package.paths.is_empty());
            let names = packages.map(|package| format!("{} {}", package.name, package.version));
            let names: Vec<String> = names.collect();
            LineWriter::new(io::stdout()).line(&format!("would try: {}", names.join(", ")));
            return Ok(0);
        }
        let lock = Lock::take(&machine.trees, &machine.env, &mut complain)?;
        let supervisor = Supervisor { pacman: None, timeout: Duration::MAX };
        let purpose = Purpose::Report { arriving, json: self.json };
        let job = WorkerJob { root: root.to_owned(), purpose };
        let ending = run_worker(&machine, lock, &supervisor, &job)?;
        if let Ending::Interrupted(signal) = ending {
            complain(&format!("error: interrupted by {signal}"));
            return Ok(128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or_default()));
        }
        // The worker has said why.
        Ok(u8::try_from(exit_code(ending)?).unwrap_or(1))
    }

    fn arriving(&self, root: &Path) -> Result<Arriving, NotTried> {
        let failed = |why: package_query::QueryError| NotTried::new(why.to_string());
        let query = package_query::beside_us().map_err(|why| failed(why.into()))?;
        let arriving =
            arriving::ask(&query, root, None, &self.files, &[].into()).map_err(failed)?;
        match arriving.unresolved.first() {
            Some(file) => Err(NotTried::new(format!("{file}: not a package file"))),
            None => Ok(arriving),
        }
    }

    /// Prints the line `text` or, with `--json`, the verdict.
    fn print(&self, text: &str, verdict: &Verdict) {
        let text = if self.json { Report::of(verdict).to_json() } else { text.to_owned() };
        LineWriter::new(io::stdout()).lines(&text);
    }
}

/// Answers the [`Question`] that `input` contains as JSON, on the machine at `root`. Returns success,
/// [`REGRESSION`], or a failure if the modules cannot be tried.
pub fn run(root: &Path, input: &mut dyn BufRead) -> ExitCode {
    let question: Result<Question, _> = serde_json::from_reader(input);
    let question = question.map_err(|error| NotTried::new(error.to_string()));
    let code = question.and_then(|question| question.answer(root)).unwrap_or_else(|why| {
        complain(&format!("error: {why}"));
        1
    });
    ExitCode::from(code)
}

/// Prints a message as `dkms` does.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "dkms: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_the_hook_program() {
        let question = Question { files: vec!["/a".into()], json: true, dry_run: false };
        let words = |idle| {
            let program = question.program(idle, false).expect("a program");
            let words = [program.get_program()].into_iter().chain(program.get_args());
            words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(false), "/usr/lib/alpm-dkms/dkms-preflight --command");
        let idle = words(true);
        assert!(
            idle.starts_with("chrt --idle 0 ionice --class idle /usr/lib/alpm-dkms/"),
            "{idle}"
        );
    }
}

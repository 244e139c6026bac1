//! The command `dkms preflight`: test-builds the modules outside a transaction.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use alpm_hook::lines::LineWriter;
use alpm_hook::package_query;
use dkms_engine::facts::running_pacman;
use dkms_engine::machine::{Lock, Machine};
use dkms_engine::os::process;
use serde::{Deserialize, Serialize};

use crate::arriving::{self, Arriving};
use crate::expected;
use crate::not_tried::NotTried;
use crate::report::{Report, complain};
use crate::scratch_dir::ScratchDir;
use crate::session::{exit_code, run_worker};
use crate::supervisor::{Ending, Supervisor, in_memory};
use crate::upgrade::Upgrade;
use crate::verdict::Verdict;
use crate::worker::Purpose;

/// The flag with which the hook's program calls [`run`].
pub const COMMAND: &str = "--command";

/// The hook's program.
const PROGRAM: &str = "/usr/lib/alpm-dkms/dkms-preflight";

/// The programs that give a command idle CPU and I/O priority (chrt(1), ionice(1)).
const IDLE: [&str; 6] = ["chrt", "--idle", "0", "ionice", "--class", "idle"];

/// The question that `dkms preflight` asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The packages with which to test-build the modules.
    pub packages: QuestionPackages,
    /// Whether to print JSON.
    pub json: bool,
    /// Whether to print the packages without building anything.
    pub dry_run: bool,
}

/// The packages that a [`Question`] is about.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuestionPackages {
    /// These package files, as absolute paths.
    Files(Vec<PathBuf>),
    /// The packages that the next `pacman -Syu` would install.
    Upgrade {
        /// Whether to download package files that are not in pacman's cache.
        downloads: bool,
    },
}

impl Question {
    /// Replaces this process with one that answers the question. With `idle`, the new process has
    /// idle CPU and I/O priority; with `quiet`, it prints nothing. Returns only if that fails, with
    /// the reason.
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
        let question = in_memory(&serde_json::to_vec(self)?)?;
        let before = if idle { &IDLE[..] } else { &[] };
        let mut words = before.iter().chain(&[PROGRAM, COMMAND]);
        let mut command = Command::new(words.next().unwrap_or(&PROGRAM));
        command.args(words).stdin(question);
        if quiet {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Ok(command)
    }

    /// Answers the question and returns the exit code.
    fn answer(&self, root: &Path) -> u8 {
        let machine = Machine::for_hook(root);
        self.try_packages(&machine).unwrap_or_else(|why| {
            complain(&format!("error: {why}"));
            machine.tools.stop.exit_code().unwrap_or(1)
        })
    }

    fn try_packages(&self, machine: &Machine) -> Result<u8, NotTried> {
        if machine.is_within_run() {
            return Err(NotTried::new(
                "cannot run a preflight from within another run of alpm-dkms",
            ));
        }
        if let Some(pacman) = running_pacman(machine) {
            return Err(NotTried::new(format!("pacman is running (process {pacman})")));
        }
        let failed = |why: io::Error| NotTried::new(why.to_string());
        let query = package_query::beside_us().map_err(failed)?;
        let arriving = match &self.packages {
            QuestionPackages::Files(files) => {
                let mut arriving = what_arrives(machine, &query, files, None)?;
                // Toolchain packages that are not among the files stay as they are.
                let packages = &arriving.packages;
                arriving.toolchain.retain(|tool| packages.iter().any(|it| it.name == tool.name));
                arriving
            }
            QuestionPackages::Upgrade { downloads } => {
                machine.tools.stop.listen().map_err(failed)?;
                let upgrade = Upgrade::find(machine, &query)?;
                let names = upgrade.packages.iter().map(|it| (&it.name, &it.version));
                if self.dry_run {
                    self.would_try(names);
                    return Ok(0);
                }
                if upgrade.packages.is_empty() {
                    expected::store(&machine.trees, &Verdict::default())?;
                    self.nothing("the next upgrade installs no kernel, headers or module source");
                    return Ok(0);
                }
                if *downloads {
                    upgrade.download()?;
                }
                let databases = Some(upgrade.databases());
                let arriving = what_arrives(machine, &query, &upgrade.files()?, databases)?;
                Arriving { upgrade: true, ..arriving }
            }
        };
        if arriving.targets().is_empty() {
            self.nothing("these packages contain no kernel, headers or module source");
            return Ok(0);
        }
        if self.dry_run {
            let packages = arriving.packages.iter().filter(|package| !package.paths.is_empty());
            self.would_try(packages.map(|package| (&package.name, &package.version)));
            return Ok(0);
        }
        let scratch = ScratchDir::create(&machine.trees, &take_lock(machine)?)?;
        let supervisor = Supervisor { pacman: None, timeout: Duration::MAX };
        let purpose = Purpose::Report {
            arriving,
            json: self.json,
            is_upgrade: matches!(self.packages, QuestionPackages::Upgrade { .. }),
        };
        let root = machine.trees.root.clone();
        let ending = run_worker(root, scratch, &supervisor, purpose)?;
        if let Ending::Interrupted(signal) = ending {
            complain(&format!("error: interrupted by {signal}"));
            return Ok(process::exit_code(signal));
        }
        // The worker has printed the reason for any other code.
        Ok(u8::try_from(exit_code(ending)?).unwrap_or(1))
    }

    fn would_try<'a>(&self, packages: impl Iterator<Item = (&'a String, &'a String)>) {
        let names = packages.map(|(name, version)| format!("{name} {version}"));
        let names: Vec<String> = names.collect();
        let text = match names.as_slice() {
            [] => "would build nothing".to_owned(),
            names => format!("would test-build the modules with: {}", names.join(", ")),
        };
        LineWriter::new(io::stdout()).line(&text);
    }

    /// Prints that there is nothing to build, for the reason `why`.
    fn nothing(&self, why: &str) {
        let text = match self.json {
            true => Report::of(&Verdict::default(), false).to_json(),
            false => format!("nothing to build: {why}"),
        };
        LineWriter::new(io::stdout()).lines(&text);
    }
}

/// Asks alpm-query about package files.
fn what_arrives(
    machine: &Machine,
    query: &Path,
    files: &[PathBuf],
    databases: Option<&Path>,
) -> Result<Arriving, NotTried> {
    let arriving =
        arriving::ask(query, &machine.trees.root, databases, None, files, &BTreeSet::new())?;
    match arriving.unresolved.first() {
        Some(file) => Err(NotTried::new(format!("{file}: not a package file"))),
        None => Ok(arriving),
    }
}

/// Takes the lock. Unlike in [`Lock::take`], a signal that this process handles ends the wait.
fn take_lock(machine: &Machine) -> Result<Lock, NotTried> {
    let mut waits = false;
    loop {
        let lock = Lock::take_within(&machine.trees, &machine.env, Duration::from_secs(1))?;
        if let Some(signal) = machine.tools.stop.asked() {
            return Err(NotTried::new(format!("interrupted by {signal}")));
        }
        if let Some(lock) = lock {
            return Ok(lock);
        }
        if !waits {
            complain("waiting for another run to finish");
            waits = true;
        }
    }
}

/// Answers the [`Question`] that `input` contains as JSON, on the machine at `root`. Returns
/// success, [`REGRESSION`](crate::report::REGRESSION), or a failure if the modules cannot be
/// test-built.
pub fn run(root: &Path, input: &mut dyn BufRead) -> ExitCode {
    let question: Result<Question, _> = serde_json::from_reader(input);
    match question {
        Ok(question) => ExitCode::from(question.answer(root)),
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_the_hook_program() {
        let question = Question {
            packages: QuestionPackages::Files(vec!["/a".into()]),
            json: true,
            dry_run: false,
        };
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

//! Finds the arriving packages, starts the trial, and prints the verdict.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use alpm_hook::lines::LineWriter;
use alpm_hook::package_query::{self, PackageQuery, Packages, QueryError};
use dkms_engine::facts::source_dirs;
use dkms_engine::machine::{Machine, PreflightMode};
use dkms_engine::os::process::Program;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::advice::newer_sources;
use crate::arriving::{self, Arriving};
use crate::departing::{departing, staying_files};
use crate::expected;
use crate::installed;
use crate::message;
use crate::needs::Needs;
use crate::not_tried::NotTried;
use crate::package_file::Package;
use crate::report::{REGRESSION, Report, complain};
use crate::trial::{TrialJob, TrialReport, TrialResults};
use crate::verdict::Verdict;

/// The flag with which the hook's program calls itself for a trial.
pub const TRIAL: &str = "--trial";

/// The exit code that asks to abort the transaction. A program that fails by accident does not end
/// with this code.
pub(crate) const ABORT: u8 = 79;

/// The points that a worker adds to the OOM score that it has inherited from pacman, so that the
/// kernel kills it first (proc_pid_oom_score_adj(5)).
const OOM_SCORE: i32 = 500;

/// The maximum of `oom_score_adj`.
const MAX_OOM_SCORE: i32 = 1000;

/// The arguments of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerJob {
    /// The root of the machine.
    pub(crate) root: PathBuf,
    pub(crate) purpose: Purpose,
}

/// The purpose of a preflight.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Decide whether a transaction may go on.
    Transaction {
        /// The process ID of pacman, as in the machine's /proc.
        pacman: Option<u32>,
        /// The paths that arrive, without a leading `/`.
        targets: BTreeSet<String>,
        /// Whether the user has allowed this transaction.
        allowed: bool,
    },
    /// Report what these packages would mean.
    Report {
        arriving: Arriving,
        /// Whether to print JSON.
        json: bool,
        /// Whether to store what the next upgrade would lose.
        is_upgrade: bool,
    },
}

/// Runs the worker that `input` describes as JSON. Returns the exit code that the supervisor expects.
pub fn run(input: &mut dyn BufRead) -> ExitCode {
    let job: WorkerJob = match serde_json::from_reader(input) {
        Ok(job) => job,
        Err(_other_version) => return ExitCode::FAILURE,
    };
    let code = job.run().unwrap_or_else(|why| match job.purpose {
        Purpose::Transaction { .. } => {
            print(&format!("note: modules not tried before the transaction: {why}"));
            0
        }
        Purpose::Report { .. } => {
            complain(&format!("error: {why}"));
            1
        }
    });
    ExitCode::from(code)
}

impl WorkerJob {
    /// Returns the exit code of the worker.
    fn run(&self) -> Result<u8, NotTried> {
        // Both only make a difference if something goes wrong.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        let _ = raise_oom_score();
        let started = Instant::now();
        let machine = Machine::for_hook(&self.root);
        let query = package_query::beside_us().map_err(QueryError::from)?;
        match &self.purpose {
            Purpose::Transaction { pacman, targets, allowed } => {
                let arriving = arriving::ask(&query, &self.root, None, *pacman, &[], targets)?;
                if let Some(missing) = arriving.unresolved.first() {
                    let why = format!("cannot find the package file with {missing}");
                    return Err(NotTried::new(why));
                }
                if arriving.packages.iter().all(|package| package.unchanged) {
                    return Ok(0); // the same packages again
                }
                let (verdict, owners) = self.verdict(&machine, &query, &arriving, targets)?;
                let aborts = verdict.is_critical()
                    && machine.settings.preflight.mode == PreflightMode::Critical
                    && !allowed;
                let advice = match aborts {
                    true => newer_sources(&query, &self.root, &verdict, &arriving, &owners),
                    false => Vec::new(),
                };
                let elapsed = started.elapsed();
                print(&message::lines(&verdict, &arriving, elapsed, aborts, &advice));
                Ok(if aborts { ABORT } else { 0 })
            }
            Purpose::Report { arriving, json, is_upgrade } => {
                let (verdict, _) = self.verdict(&machine, &query, arriving, &arriving.targets())?;
                if *is_upgrade {
                    expected::store(&machine.trees, &verdict)?;
                    expected::announce(&machine, &verdict);
                }
                let mut text = match json {
                    true => Report::of(&verdict).to_json(),
                    false => message::lines(&verdict, arriving, started.elapsed(), false, &[]),
                };
                let would_abort = verdict.is_critical()
                    && machine.settings.preflight.mode == PreflightMode::Critical;
                if would_abort && !json {
                    text += "a transaction with these packages would be aborted\n";
                }
                print(if text.is_empty() { "nothing to build for these packages" } else { &text });
                Ok(if verdict.regressions.is_empty() { 0 } else { REGRESSION })
            }
        }
    }

    /// Tries the modules for the arriving packages, and compares the results with the modules that
    /// work now. Also returns the packages that own the kernels and sources.
    fn verdict(
        &self,
        machine: &Machine,
        query: &Path,
        arriving: &Arriving,
        targets: &BTreeSet<String>,
    ) -> Result<(Verdict, Packages), NotTried> {
        let installed =
            installed::read(machine).map_err(|failure| NotTried::new(failure.message))?;
        let (sources, _) = source_dirs(&machine.trees);
        let kernels = installed.iter().map(|it| it.kernel.release.clone()).collect();
        let lookups = PackageQuery { sources, kernels, ..PackageQuery::default() };
        let owners = package_query::ask(query, &self.root, &lookups)?;
        let mut trial = self.trial(machine, arriving, &owners, targets);
        trial.staying = staying_files(query, machine, arriving, &trial.arriving_sources())?;
        let mut results = trial.start(machine)?;
        if !arriving.toolchain.is_empty() {
            let tools: Vec<&str> = arriving.toolchain.iter().map(|it| it.name.as_str()).collect();
            let why = format!("the transaction also replaces {}", tools.join(", "));
            results.excuse_failures(&why, |_| true);
        }
        let outside: BTreeSet<String> = arriving.sources_with_files_outside().collect();
        results.excuse_failures("its package contains files outside of its source", |module| {
            outside.contains(&module.source_dir())
        });
        let needs = Needs::read(machine);
        let verdict = Verdict::of(&results, &installed, &arriving.modules(), |module, kernel| {
            needs.reason(module, kernel)
        });
        Ok((verdict, owners))
    }

    fn trial(
        &self,
        machine: &Machine,
        arriving: &Arriving,
        owners: &Packages,
        targets: &BTreeSet<String>,
    ) -> TrialJob {
        let packages = arriving.packages.iter().filter(|package| !package.paths.is_empty());
        TrialJob {
            root: self.root.clone(),
            targets: targets.clone(),
            packages: packages
                .clone()
                .map(|it| Package { file: it.file.clone(), targets: it.paths.clone() })
                .collect(),
            size: packages.clone().map(|package| package.size).sum(),
            departing: departing(machine, arriving, owners),
            unowned: owners.unowned().cloned().collect(),
            objects: packages.flat_map(|package| package.objects.iter().cloned()).collect(),
            stores: !arriving.replaces_compiler()
                && arriving.sources_with_files_outside().next().is_none(),
            staying: BTreeSet::new(),
        }
    }
}

fn raise_oom_score() -> io::Result<()> {
    let file = "/proc/self/oom_score_adj";
    let inherited: i32 = fs::read_to_string(file)?.trim().parse().unwrap_or_default();
    fs::write(file, (inherited + OOM_SCORE).min(MAX_OOM_SCORE).to_string())
}

impl TrialJob {
    /// Runs the trial in a process of its own, because only a process with one thread can enter a
    /// mount namespace.
    fn start(&self, machine: &Machine) -> Result<TrialResults, NotTried> {
        let failed = |why: String| NotTried::new(format!("the trial failed: {why}"));
        let this = env::current_exe().map_err(|error| failed(error.to_string()))?;
        let job = serde_json::to_vec(self).map_err(|error| failed(error.to_string()))?;
        let ended = Program::new(this, &machine.env)
            .arg(TRIAL)
            .stdin(job)
            .run()
            .map_err(|error| failed(error.to_string()))?;
        let report: Option<TrialReport> = serde_json::from_slice(&ended.output).ok();
        match report {
            Some(report) => report,
            None => {
                let complaint = ended.complaint();
                let last = complaint.lines().last().map(|last| format!(": {last}"));
                Err(failed(format!("{}{}", ended.how, last.unwrap_or_default())))
            }
        }
    }
}

fn print(lines: &str) {
    LineWriter::new(io::stdout()).lines(lines);
}

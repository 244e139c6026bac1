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
use dkms_engine::machine::{Kernel, Kernels, Machine, Target};
use dkms_engine::names::KernelRelease;
use dkms_engine::os::process::Program;
use dkms_initramfs::{Generator, lacking_space};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::advice::newer_sources;
use crate::arriving::{self, Arriving, ArrivingPackage, source_of};
use crate::departing::{departing, staying_files};
use crate::expected;
use crate::installed::{self, InstalledModule};
use crate::message::{self, Consequence};
use crate::not_tried::NotTried;
use crate::package_file::Package;
use crate::permission;
use crate::report::{REGRESSION, Report, complain};
use crate::trial::{TrialJob, TrialReport};
use crate::verdict::Verdict;

/// The flag with which the hook's program calls itself for a trial.
pub const TRIAL: &str = "--trial";

/// The exit code that asks to abort the transaction. A program that fails by accident does not end
/// with this code.
pub(crate) const ABORT: u8 = 79;

/// The points that a worker adds to the OOM score inherited from pacman, so that the kernel kills
/// the worker first (proc_pid_oom_score_adj(5)).
const OOM_SCORE: i32 = 500;

/// The maximum of `oom_score_adj`.
const MAX_OOM_SCORE: i32 = 1000;

/// The arguments of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerJob {
    /// The root of the machine.
    pub(crate) root: PathBuf,
    /// The directory for scratch space.
    pub(crate) scratch: PathBuf,
    pub(crate) purpose: Purpose,
}

/// The purpose of a preflight.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Decide whether a transaction may continue.
    Transaction {
        /// The process ID of pacman, as in the machine's /proc.
        pacman: Option<u32>,
        /// The paths that arrive, without a leading `/`.
        targets: BTreeSet<String>,
    },
    /// Report the consequences of installing these packages.
    Report {
        arriving: Arriving,
        /// Whether to print JSON.
        json: bool,
        /// Whether to store the modules that the next upgrade would lose.
        is_upgrade: bool,
    },
}

/// Runs the worker that `input` describes as JSON. Returns the exit code that the supervisor
/// expects.
pub fn run(input: &mut dyn BufRead) -> ExitCode {
    let job: WorkerJob = match serde_json::from_reader(input) {
        Ok(job) => job,
        Err(_other_version) => return ExitCode::FAILURE,
    };
    let code = job.run().unwrap_or_else(|why| match job.purpose {
        Purpose::Transaction { .. } => {
            print(&why.note());
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
        // These two calls matter only if something goes wrong, so their errors are ignored.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        let _ = raise_oom_score();
        let machine = Machine::for_hook(&self.root);
        let query = package_query::beside_us().map_err(QueryError::from)?;
        match &self.purpose {
            Purpose::Transaction { pacman, targets } => {
                self.decide(&machine, &query, *pacman, targets)
            }
            Purpose::Report { arriving, json, is_upgrade } => {
                self.report(&machine, &query, arriving, *json, *is_upgrade)
            }
        }
    }

    /// Decides whether a transaction may continue. Returns [`ABORT`] if not.
    fn decide(
        &self,
        machine: &Machine,
        query: &Path,
        pacman: Option<u32>,
        targets: &BTreeSet<String>,
    ) -> Result<u8, NotTried> {
        let started = Instant::now();
        let arriving = arriving::ask(query, &self.root, None, pacman, &[], targets)?;
        if let Some(missing) = arriving.unresolved.first() {
            return Err(NotTried::new(format!(
                "cannot find the package file that contains {missing}"
            )));
        }
        if arriving.packages.iter().all(|package| package.unchanged) {
            return Ok(0); // the same packages again
        }
        let owners = owners(machine, query)?;
        let verdict = self.verdict(machine, query, &arriving, &owners, targets)?;
        // Without regressions, the earlier list is kept: the user may have excluded the kernel with
        // --ignore.
        if arriving.upgrade
            && !verdict.regressions.is_empty()
            && let Err(error) = expected::store(&machine.trees, &verdict)
        {
            log::info!("{error}");
        }
        let would_abort = verdict.aborts(machine.settings.preflight.mode);
        let aborts = would_abort && !permission::take(&machine.trees);
        if would_abort && !aborts {
            print("note: continuing, as permitted by dkms preflight --allow-once");
        }
        let consequence = if aborts { Consequence::Aborts } else { Consequence::Continues };
        let advice = self.advice(query, &verdict, consequence, &arriving, &owners);
        print(&message::lines(&verdict, &arriving, started.elapsed(), consequence, &advice));
        Ok(if aborts { ABORT } else { 0 })
    }

    /// Reports the consequences of installing the packages. Returns [`REGRESSION`] if a module
    /// would be lost.
    fn report(
        &self,
        machine: &Machine,
        query: &Path,
        arriving: &Arriving,
        json: bool,
        is_upgrade: bool,
    ) -> Result<u8, NotTried> {
        let started = Instant::now();
        let (owners, targets) = (owners(machine, query)?, arriving.targets());
        let mut verdict = self.verdict(machine, query, arriving, &owners, &targets)?;
        verdict.warnings.extend(unknown_critical_modules(machine)?);
        verdict.warnings.extend(headers_without_kernel(machine, &targets)?);
        if is_upgrade {
            expected::store(&machine.trees, &verdict)?;
            expected::announce(machine, &verdict);
        }
        let loses_needed = verdict.aborts(machine.settings.preflight.mode);
        let is_permitted = loses_needed && permission::is_granted(&machine.trees);
        let would_abort = loses_needed && !is_permitted;
        if json {
            print(&Report::of(&verdict, would_abort).to_json());
        } else {
            if is_permitted {
                let note = "an earlier dkms preflight --allow-once permits this transaction";
                print(&format!("note: {note}"));
            }
            let consequence = match would_abort {
                true => Consequence::WouldAbort,
                false => Consequence::WouldContinue,
            };
            let advice = self.advice(query, &verdict, consequence, arriving, &owners);
            let elapsed = started.elapsed();
            let text = message::lines(&verdict, arriving, elapsed, consequence, &advice);
            print(if text.is_empty() { "nothing to build for these packages" } else { &text });
        }
        Ok(if verdict.regressions.is_empty() { 0 } else { REGRESSION })
    }

    /// Returns the lines about newer sources. Returns an empty list if the transaction continues or
    /// would continue.
    fn advice(
        &self,
        query: &Path,
        verdict: &Verdict,
        consequence: Consequence,
        arriving: &Arriving,
        owners: &Packages,
    ) -> Vec<String> {
        match consequence.is_abort() {
            true => newer_sources(query, &self.root, verdict, arriving, owners),
            false => Vec::new(),
        }
    }

    /// Test-builds the modules with the arriving packages. `owners` are the packages that own the
    /// kernels and sources of the machine, and `targets` are the arriving paths.
    fn verdict(
        &self,
        machine: &Machine,
        query: &Path,
        arriving: &Arriving,
        owners: &Packages,
        targets: &BTreeSet<String>,
    ) -> Result<Verdict, NotTried> {
        let sources = targets.iter().filter_map(|target| source_of(target)).collect();
        let staying = staying_files(query, machine, arriving, &sources)?;
        let trial = TrialJob { staying, ..self.trial(machine, arriving, owners, targets) };
        let mut verdict = trial.start(machine)?;
        if arriving.packages.iter().any(ArrivingPackage::is_new_kernel)
            && let Some(generator) = Generator::detect(machine)
        {
            verdict.warnings = lacking_space(machine, &generator, &kernels(machine)?);
        }
        Ok(verdict)
    }

    fn trial(
        &self,
        machine: &Machine,
        arriving: &Arriving,
        owners: &Packages,
        targets: &BTreeSet<String>,
    ) -> TrialJob {
        let packages = arriving.packages.iter().filter(|package| !package.paths.is_empty());
        let is_transaction = matches!(self.purpose, Purpose::Transaction { .. });
        let incomplete_sources: BTreeSet<String> = arriving.sources_with_files_outside().collect();
        TrialJob {
            root: self.root.clone(),
            scratch: self.scratch.clone(),
            takes_lock: !is_transaction,
            stops_early: is_transaction && !permission::is_granted(&machine.trees),
            targets: targets.clone(),
            in_kernels: arriving.modules(),
            toolchain: arriving.toolchain.iter().map(|tool| tool.name.clone()).collect(),
            packages: packages
                .clone()
                .map(|it| Package {
                    name: it.name.clone(),
                    version: it.version.clone(),
                    file: it.file.clone(),
                    targets: it.paths.clone(),
                    not_extracted: it.not_extracted.clone(),
                })
                .collect(),
            size: packages.clone().map(|package| package.size).sum(),
            departing: departing(arriving, owners),
            unowned: owners.unowned().cloned().collect(),
            objects: packages.flat_map(|package| package.objects.iter().cloned()).collect(),
            stores: !arriving.replaces_compiler() && incomplete_sources.is_empty(),
            incomplete_sources,
            staying: BTreeSet::new(),
        }
    }
}

/// Returns the packages that own the kernels and sources of the machine.
fn owners(machine: &Machine, query: &Path) -> Result<Packages, NotTried> {
    let lookups = PackageQuery {
        sources: source_dirs(&machine.trees).0,
        kernels: kernels(machine)?.into_iter().map(|kernel| kernel.release).collect(),
        ..PackageQuery::default()
    };
    Ok(package_query::ask(query, &machine.trees.root, &lookups)?)
}

/// Returns the kernels that are installed now.
fn kernels(machine: &Machine) -> Result<Vec<Kernel>, NotTried> {
    let kernels = Kernels::read(&machine.trees)?.all.into_iter();
    Ok(kernels.filter(|kernel| kernel.alive).collect())
}

/// Returns a message for each kernel whose headers arrive although the kernel itself is not
/// installed and does not arrive.
fn headers_without_kernel(
    machine: &Machine,
    targets: &BTreeSet<String>,
) -> Result<BTreeSet<String>, NotTried> {
    let installed: BTreeSet<_> = kernels(machine)?.into_iter().map(|it| it.release).collect();
    let targets: Vec<Target> = targets.iter().filter_map(|target| Target::parse(target)).collect();
    let is_there = |release: &KernelRelease| {
        installed.contains(release) || targets.contains(&Target::Kernel(release.clone()))
    };
    let message = |target: &Target| match target {
        Target::Headers(release) if !is_there(release) => Some(format!(
            "{release}: these packages contain its headers, but the kernel is not installed"
        )),
        _ => None,
    };
    Ok(targets.iter().filter_map(message).collect())
}

/// Returns a message for each name in `[preflight] critical` that no installed module has.
fn unknown_critical_modules(machine: &Machine) -> Result<Vec<String>, NotTried> {
    let kernels = installed::read(machine)?;
    let modules = kernels.iter().flat_map(|kernel| kernel.modules.values());
    let known: BTreeSet<String> = modules.flat_map(InstalledModule::names).collect();
    let unknown = machine.settings.preflight.critical.iter().filter(|name| !known.contains(*name));
    let message =
        |name| format!("[preflight] critical: {name}: ignored: no installed module has this name");
    Ok(unknown.map(message).collect())
}

fn raise_oom_score() -> io::Result<()> {
    let file = "/proc/self/oom_score_adj";
    let inherited: i32 = fs::read_to_string(file)?.trim().parse().unwrap_or_default();
    fs::write(file, (inherited + OOM_SCORE).min(MAX_OOM_SCORE).to_string())
}

impl TrialJob {
    /// Runs the trial in a process of its own, because only a process with one thread can enter a
    /// mount namespace.
    fn start(&self, machine: &Machine) -> Result<Verdict, NotTried> {
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

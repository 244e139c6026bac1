//! Test-builds the modules in a mount namespace in which the new files are already in place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alpm_hook::Targets;
use dkms_engine::act;
use dkms_engine::facts::{self, Scope, Subjects};
use dkms_engine::machine::{Lock, Machine, Target, Trees, Trial};
use dkms_engine::names::KernelRelease;
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::plan::{self, Job, Note, Plan, Request};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

use crate::installed::{self, InstalledKernel};
use crate::namespace;
use crate::needs::Needs;
use crate::not_tried::NotTried;
use crate::outcome::{Complaint, TrialResults, Tried, TriedResult, known_before, outcomes};
use crate::package_file::Package;
use crate::scratch::{Departing, Scratch};
use crate::statement;
use crate::verdict::Verdict;

/// The memory in bytes that builds need in addition to the unpacked files.
const BUILDS: u64 = 256 << 20;

/// The space in bytes that a trial leaves free on a disk. pacman has already checked that the files
/// of the transaction fit, but installs them only after the trial.
const LEFT_FREE: u64 = 4 << 30;

/// The maximum size in bytes of a file that a trial writes.
const LARGEST_FILE: u64 = 2 << 30;

/// The arguments of a trial.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TrialJob {
    /// The root of the machine.
    pub(crate) root: PathBuf,
    /// The directory for scratch space.
    pub(crate) scratch: PathBuf,
    /// Whether the trial itself takes the lock whenever it reads the trees or uses the cache. If
    /// false, the hook holds the lock until the trial ends.
    pub(crate) takes_lock: bool,
    /// Whether to stop before the builds if the transaction will be aborted anyway.
    pub(crate) stops_early: bool,
    /// The paths that arrive, without a leading `/`.
    pub(crate) targets: BTreeSet<String>,
    /// The packages that contain the arriving paths.
    pub(crate) packages: Vec<Package>,
    /// The total installed size in bytes of the packages.
    pub(crate) size: u64,
    pub(crate) departing: Departing,
    /// The kernels that no package owns.
    pub(crate) unowned: BTreeSet<KernelRelease>,
    /// Some of the objects of each arriving kernel, which show how the kernel's objects are
    /// compressed.
    pub(crate) objects: Vec<String>,
    /// The files that stay in the directories of arriving sources, without a leading `/`.
    pub(crate) staying: BTreeSet<String>,
    /// The names of all kernel modules that the arriving kernels contain, with `_` for `-`.
    pub(crate) in_kernels: BTreeSet<String>,
    /// The packages of the toolchain that the transaction replaces. If there are any, a failed
    /// build proves nothing.
    pub(crate) toolchain: Vec<String>,
    /// The names of the source directories whose packages also contain files elsewhere. A failed
    /// build of such a source proves nothing, since a trial does not contain those files.
    pub(crate) incomplete_sources: BTreeSet<String>,
    /// Whether successful builds are stored in the machine's cache.
    pub(crate) stores: bool,
}

/// The verdict of a trial, or the reason why no module was test-built.
pub(crate) type TrialReport = Result<Verdict, NotTried>;

/// Runs the trial that `input` describes as JSON, and writes a [`TrialReport`] as JSON to standard
/// output.
pub fn run(input: &mut dyn BufRead) -> ExitCode {
    let job: Result<TrialJob, _> = serde_json::from_reader(input);
    let report: TrialReport =
        job.map_err(|error| NotTried::new(error.to_string())).and_then(|job| job.run());
    let written = serde_json::to_vec(&report).map_err(io::Error::from);
    match written.and_then(|report| io::stdout().write_all(&report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

impl TrialJob {
    fn run(&self) -> TrialReport {
        // Everything that the trial needs of the real machine is opened or read before the
        // machine's trees are hidden.
        let mut machine = Machine::for_hook(&self.root);
        let trees = machine.trees.clone();
        let usual = Trees::under(&trees.root);
        if (&trees.source, &trees.install) != (&usual.source, &usual.install) {
            let why = "framework.conf sets source_tree or install_tree to a directory that packages \
                       do not use";
            return Err(NotTried::new(why));
        }
        // The trees of the trial are mounted on these directories.
        let is_lacking = |dir: &str, tree: &Path| {
            !tree.is_dir() && self.targets.iter().any(|target| target.starts_with(dir))
        };
        let trees_of_packages = [("usr/src/", &trees.source), ("usr/lib/modules/", &trees.install)];
        if let Some((_, tree)) = trees_of_packages.iter().find(|(dir, tree)| is_lacking(dir, tree))
        {
            return Err(NotTried::new(format!("there is no directory {} yet", tree.display())));
        }
        machine.is_chroot();
        let now = Now {
            installed: installed::read(&machine)?,
            needs: Needs::read(&machine),
            partly_unpacked: facts::partly_unpacked_sources(&machine),
        };
        let lock = self.takes_lock.then(|| Lock::take(&trees, &machine.env, &mut |_| {}));
        let lock = lock.transpose()?;
        let lock_file = lock.as_ref().map(|_| open(&trees.lock())).transpose()?;
        let cache =
            self.stores.then(|| open_dir(&trees.dkms.join(".cache/objects"))).transpose()?;
        let logs = open_dir(&trees.dkms.join(".log"))?;

        namespace::enter()?;
        limit_files()?;
        let dir = self.scratch.canonicalize().map_err(FileError::when("find", &self.scratch))?;
        self.make_room(&machine, &dir)?;
        namespace::mount_proc();
        // From here on, nothing can change the machine: mounting a directory in the scratch space
        // does not make it writable, and a link in a package cannot lead out of the scratch space.
        namespace::make_read_only(&[dir.as_path()])?;
        namespace::verify_read_only(&["/", "/usr", "/etc", "/var"].map(Path::new))?;
        // The hooks build nothing from a partly unpacked source, so the trial must not see it
        // either.
        let mut hidden = self.departing.clone();
        hidden.sources.extend(now.partly_unpacked.iter().cloned());
        let scratch = Scratch::new(&trees, &hidden, &dir)?;
        self.packages.iter().try_for_each(|package| scratch.unpack(package))?;
        if let Some(missing) = self.targets.iter().find(|target| !scratch.path(target).exists()) {
            return Err(NotTried::new(format!("the packages do not contain {missing}")));
        }
        if self.stops_early
            && let Some(verdict) = self.without_headers(&machine, &scratch, &now)?
        {
            return Ok(verdict);
        }
        scratch.add_staying(&self.staying)?;
        scratch.fill()?;
        // The path of the lists is hidden once the trees are mounted.
        let lists = open(scratch.lists())?;
        scratch.mount()?;
        drop(lock);

        machine.trial = Some(Trial::new(lock_file.as_ref().map(path_of)));
        machine.depmod = false;
        machine.trees.build_cache = cache.as_ref().map(path_of);
        machine.trees.package_lists = Some(path_of(&lists));
        self.build(&machine, &now, &path_of(&logs))
    }

    /// Returns the verdict if the missing headers of arriving kernels are enough to abort the
    /// transaction, and `None` otherwise. The caller must unpack the packages first, but need not
    /// fill the trees.
    fn without_headers(
        &self,
        machine: &Machine,
        scratch: &Scratch,
        now: &Now,
    ) -> Result<Option<Verdict>, NotTried> {
        let mut results = TrialResults { tried: Vec::new(), packages: BTreeMap::new() };
        for kernel in self.arriving()?.subjects().kernels {
            let dir = scratch.path("usr/lib/modules").join(kernel.as_str());
            let places = [&dir, &machine.trees.install.join(kernel.as_str())];
            let has_headers = places.iter().any(|dir| dir.join("build/include").is_dir());
            let pkgbase = fs::read_to_string(dir.join("pkgbase")).ok();
            let pkgbase = pkgbase.map(|text| text.trim().to_owned());
            if let Some(package) = pkgbase.or_else(|| self.package_of(&kernel))
                && !has_headers
            {
                results.packages.insert(kernel.clone(), package);
                let (module, result) = (None, TriedResult::NoHeaders);
                results.tried.push(Tried { module, kernel: Some(kernel), result });
            }
        }
        let verdict = self.verdict(&mut results, machine, now);
        Ok(verdict.aborts(machine.settings.preflight.mode).then_some(verdict))
    }

    /// Returns the name of the package that contains an arriving kernel. pacman's database does not
    /// contain the package yet.
    fn package_of(&self, kernel: &KernelRelease) -> Option<String> {
        let contains = |path: &String| Target::parse(path) == Some(Target::Kernel(kernel.clone()));
        let package = self.packages.iter().find(|it| it.targets.iter().any(contains))?;
        Some(package.name.clone())
    }

    /// Returns the arriving paths as pacman's targets.
    fn arriving(&self) -> Result<Targets, NotTried> {
        let text: String = self.targets.iter().map(|target| format!("{target}\n")).collect();
        Ok(Targets::read(&mut text.as_bytes())?)
    }

    /// Makes `dir` a mount point. Mounts a file system in memory on `dir` or, if there is not
    /// enough memory, bind-mounts `dir` on itself.
    fn make_room(&self, machine: &Machine, dir: &Path) -> Result<(), NotTried> {
        let needed = self.size.saturating_add(BUILDS);
        let memory = machine.memory.available().unwrap_or_default() / 2;
        if needed <= memory {
            return namespace::mount_memory(dir, memory);
        }
        let disk = durable::free_space(dir).unwrap_or_default();
        if needed.saturating_mul(2).saturating_add(LEFT_FREE) <= disk {
            return namespace::bind(dir, dir);
        }
        Err(NotTried::new(format!(
            "not enough space: requires {} MiB of free memory, or {} MiB free in {}",
            (needed * 2) >> 20,
            (needed * 2 + LEFT_FREE) >> 20,
            dir.parent().unwrap_or(dir).display()
        )))
    }

    /// Builds the modules and returns the verdict. Copies the logs of failed builds into the
    /// directory `logs`.
    fn build(&self, machine: &Machine, now: &Now, logs: &Path) -> TrialReport {
        let targets = self.arriving()?;
        let arrived = targets.subjects();
        let scope =
            Scope { changed: Some(arrived.clone()), trusts_packages: true, ..Scope::default() };
        let mut facts = facts::read(machine, &scope);
        if !act::carry_over_registrations(machine, &facts, &BTreeSet::new()).is_empty() {
            facts = facts::read(machine, &scope);
        }
        facts.mark_copies(self.unowned.iter());
        for kernel in &arrived.kernels {
            machine.set_compression_from(kernel, &self.objects);
        }
        let arrives = |kernel: &KernelRelease| arrived.kernels.contains(kernel);
        let kernels = facts.kernels.iter().filter(|(release, _)| arrives(release));
        let packages = kernels.filter_map(|(release, about)| {
            let package = about.kernel.package.clone().or_else(|| self.package_of(release))?;
            Some((release.clone(), package))
        });
        let packages = packages.collect();
        let request =
            Request::Sync { arrived, departed: Subjects::default(), headers: targets.headers };
        let plan = plan::make(&request, &facts)?;
        let mut results = TrialResults { tried: Vec::new(), packages };
        if self.stops_early {
            let missing = self.missing_sources(now, &plan, &results.packages);
            let refused = refusals(machine, &plan, &now.installed);
            results.tried = [known_before(&plan), missing, refused].concat();
            let verdict = self.verdict(&mut results, machine, now);
            if verdict.aborts(machine.settings.preflight.mode) {
                return Ok(verdict);
            }
        }
        let report = act::carry_out(&plan, &facts, machine, &mut ());
        results.tried = outcomes(machine, &plan, &report);
        keep_logs(&results.tried, logs);
        results.tried.extend(self.missing_sources(now, &plan, &results.packages));
        let verdict = self.verdict(&mut results, machine, now);
        Ok(Verdict { not_stored: machine.trial.as_ref().and_then(Trial::not_stored), ..verdict })
    }

    /// Compares the results with the modules that work now.
    fn verdict(&self, results: &mut TrialResults, machine: &Machine, now: &Now) -> Verdict {
        for tried in &mut results.tried {
            if let TriedResult::Fails(complaint) = &tried.result
                && let Some(why) = self.excuse(tried, &machine.trees)
            {
                let problem = complaint.cause.as_ref().unwrap_or(&complaint.message);
                tried.result = TriedResult::Unknown(format!("{problem}; {why}"));
            }
        }
        Verdict::of(results, &now.installed, &self.in_kernels, |module, kernel| {
            now.needs.reason(machine, module, kernel)
        })
    }

    /// Returns why a failure of this module proves nothing; `None` if it proves something.
    fn excuse(&self, tried: &Tried, trees: &Trees) -> Option<String> {
        let module = tried.module.as_ref()?;
        if !self.toolchain.is_empty() {
            return Some(format!("the transaction also replaces {}", self.toolchain.join(", ")));
        }
        if self.incomplete_sources.contains(&module.source_dir()) {
            return Some("its package also installs files outside the source directory".to_owned());
        }
        statement::looks_at_kernel(&trees.source.join(module.source_dir())).then(|| {
            "its dkms.conf reads kernel files that exist only after the transaction".to_owned()
        })
    }

    /// Returns failures for each module whose source is missing although the transaction does not
    /// remove it: one failure for each arriving kernel for which no other version will be
    /// installed.
    fn missing_sources(
        &self,
        now: &Now,
        plan: &Plan,
        packages: &BTreeMap<KernelRelease, String>,
    ) -> Vec<Tried> {
        let missing = plan.notes.iter().filter_map(|note| match note {
            Note::SourceMissing { module, dir } => Some((module, dir)),
            _ => None,
        });
        let missing = missing.filter(|(_, dir)| !self.departing.sources.contains(*dir));
        let failures = missing.flat_map(|(module, dir)| {
            let what = if now.partly_unpacked.contains(dir) { "incomplete" } else { "missing" };
            let message = format!(
                "its source is {what}: /usr/src/{dir}; reinstall its package, or run: dkms remove \
                 {module} --all"
            );
            let other = |job: &Job| job.module.name == module.name;
            let is_replaced = move |kernel: &KernelRelease| {
                plan.jobs.iter().any(|job| other(job) && job.kernel == *kernel)
            };
            packages.keys().filter(move |kernel| !is_replaced(kernel)).map(move |kernel| Tried {
                module: Some(module.clone()),
                kernel: Some(kernel.clone()),
                result: TriedResult::Fails(Complaint::new(&message)),
            })
        });
        failures.collect()
    }
}

/// The state of the machine before the transaction.
struct Now {
    installed: Vec<InstalledKernel>,
    needs: Needs,
    /// The names of the source directories that pacman has unpacked only in part.
    partly_unpacked: BTreeSet<String>,
}

/// Returns a failure for each job whose source does not support the job's kernel. Skips jobs whose
/// build is in the cache, because the module is known to build.
fn refusals(machine: &Machine, plan: &Plan, installed: &[InstalledKernel]) -> Vec<Tried> {
    let trees = &machine.trees;
    let refused = |job: &Job| {
        let source = trees.source.join(job.module.source_dir());
        let has_module = |it: &&InstalledKernel| {
            it.modules.get(&job.module.name).is_some_and(|module| module.id == job.module)
        };
        let built = installed.iter().filter(has_module).map(|it| &it.kernel.release);
        let why = statement::refusal(&source, &trees.etc, &job.kernel, built)?;
        Some(Tried {
            module: Some(job.module.clone()),
            kernel: Some(job.kernel.clone()),
            result: TriedResult::Fails(Complaint::new(why)),
        })
    };
    plan.jobs.iter().filter(|job| !job.is_cached()).filter_map(refused).collect()
}

/// Opens a directory of the machine, and creates it if necessary.
fn open_dir(dir: &Path) -> Result<File, NotTried> {
    durable::create_dirs(dir)?;
    open(dir)
}

/// Opens a file or directory of the machine, which then stays reachable even if a mount hides its
/// path.
fn open(path: &Path) -> Result<File, NotTried> {
    Ok(File::open(path).map_err(FileError::when("open", path))?)
}

/// Returns a path to an open file or directory. Mounts cannot hide this path (proc_pid_fd(5)).
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn limit_files() -> Result<(), NotTried> {
    setrlimit(Resource::RLIMIT_FSIZE, LARGEST_FILE, LARGEST_FILE)
        .map_err(|errno| NotTried::new(format!("cannot limit file sizes: {errno}")))
}

/// Copies the logs of failed builds into the directory `logs`. Ignores logs that cannot be copied.
fn keep_logs(tried: &[Tried], logs: &Path) {
    for log in tried.iter().filter_map(|tried| tried.log()) {
        if let Some(name) = log.file_name() {
            let _ = fs::copy(log, logs.join(name));
        }
    }
}

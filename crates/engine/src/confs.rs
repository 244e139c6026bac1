//! Asking dkms.conf on behalf of one machine: which files, with which variables, in whose name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::conf::{Answer, Conf, ConfError, Excluded, Question, Reader, Values};
use crate::digest::Digest;
use crate::facts::Heard;
use crate::failure::Failure;
use crate::kernels::{Kernel, KernelConfig};
use crate::links;
use crate::lock;
use crate::names::ModuleId;
use crate::programs;
use crate::side_by_side::on_all_cores_with;
use crate::site::Site;

/// A second bash is worth its start for so many confs.
const ENOUGH: usize = 2;

/// The confs of one machine. Several threads may ask at once.
pub(crate) struct Confs<'a> {
    site: &'a Site,
    /// Where our programs are that confs find first. Made before any of them can be run: a file that
    /// somebody has open for writing cannot be.
    programs: OnceLock<Option<PathBuf>>,
    /// Modules whose conf was out of time once: asking again for each kernel costs as much.
    out_of_time: Mutex<BTreeMap<ModuleId, Failure>>,
    /// The configurations of kernels that confs asked about.
    configs: Mutex<BTreeMap<PathBuf, Option<KernelConfig>>>,
}

/// A conf to be asked, and for whom.
pub(crate) struct Asking<'a> {
    /// The module.
    pub(crate) id: ModuleId,
    /// What it is asked about.
    pub(crate) kernel: &'a Kernel,
    /// The directory of the conf.
    pub(crate) source: PathBuf,
}

impl<'a> Confs<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        Self {
            site,
            programs: OnceLock::new(),
            out_of_time: Mutex::default(),
            configs: Mutex::default(),
        }
    }

    /// Asks the conf of a module that dkms knows.
    pub(crate) fn ask(&self, id: &ModuleId, kernel: &Kernel) -> Result<(Values, Conf), Failure> {
        let source = self.source_of(id);
        let heard = self.ask_at(&Asking { id: id.clone(), kernel, source })?;
        self.accept(heard, kernel)
    }

    /// Where the source is of a module that dkms knows.
    pub(crate) fn source_of(&self, id: &ModuleId) -> PathBuf {
        let trees = &self.site.trees;
        let link = trees.source_link(id);
        links::resolve(&trees.root, &link).unwrap_or(link)
    }

    /// Understands what something is to be built by, and warns of what its user should know.
    pub(crate) fn accept(&self, heard: Heard, kernel: &Kernel) -> Result<(Values, Conf), Failure> {
        for (directive, file) in &heard.deprecated {
            log::warn!("{directive} is deprecated: it is set in {}", file.display());
        }
        let conf = self.understand(kernel, &heard.source, &heard.values)?;
        if conf.records.is_empty() {
            let source = heard.source.display();
            log::warn!("{source}/dkms.conf names no objects: make is run, no more");
        }
        Ok((heard.values, conf))
    }

    /// Asks many confs; the answers stand in the order of the questions.
    pub(crate) fn ask_all(&self, asking: &[Asking<'_>]) -> Vec<Result<Heard, Failure>> {
        // Each thread has its own, which is killed when the thread ends (`PR_SET_PDEATHSIG`).
        let reader = || self.reader();
        on_all_cores_with(asking, ENOUGH, reader, |reader, asking| self.ask_by(reader, asking))
    }

    /// Asks the conf in a directory.
    pub(crate) fn ask_at(&self, asking: &Asking<'_>) -> Result<Heard, Failure> {
        self.ask_by(&mut self.reader(), asking)
    }

    fn ask_by(&self, reader: &mut Reader, asking: &Asking<'_>) -> Result<Heard, Failure> {
        let Asking { id, kernel, source } = asking;
        if let Some(problem) = of(&self.out_of_time).get(id) {
            return Err(problem.clone());
        }
        let site = self.site;
        let question = Question {
            id,
            kernel: &kernel.release,
            arch: &site.arch,
            kernel_source_dir: self.source_dir(kernel),
            kernel_config: kernel.config_file().unwrap_or_default(),
            conf_file: site.asked.conf_of(id, source),
            trees: &site.trees,
            parallel_jobs: site.settings.jobs(),
        };
        match reader.read(&question) {
            Ok(answer) => {
                if !answer.complaint.trim().is_empty() {
                    log::info!("{}: {}", question.conf_file.display(), answer.complaint.trim());
                }
                let Answer { mut values, deprecated, .. } = answer;
                site.asked.set_directives(&mut values);
                Ok(Heard { source: source.clone(), just_now: true, values, deprecated })
            }
            Err(error) => {
                let problem = Failure::from(&error);
                if matches!(error, ConfError::TimedOut { .. }) {
                    of(&self.out_of_time).insert(id.clone(), problem.clone());
                }
                Err(problem)
            }
        }
    }

    fn reader(&self) -> Reader {
        let site = self.site;
        let programs = self.programs.get_or_init(|| programs::directory(site).ok());
        // A conf that calls dkms is part of this run.
        let env = site.env.clone().with(lock::WITHIN, "1");
        let mut reader = Reader::new(site.tools.clone(), env, programs.as_deref());
        reader.patience = site.settings.conf_timeout();
        reader
    }

    /// The path by which a conf knows the headers of a kernel.
    fn source_dir(&self, kernel: &Kernel) -> PathBuf {
        let given = self.site.asked.kernel_source.clone();
        given.unwrap_or_else(|| kernel.dir.join("build"))
    }

    /// Understands values that the conf in the directory `source` has now, or had earlier.
    pub(crate) fn understand(
        &self,
        kernel: &Kernel,
        source: &Path,
        values: &Values,
    ) -> Result<Conf, Failure> {
        let file = source.join("dkms.conf");
        let conf = Conf::from_values(values, &file, &kernel.release)
            .and_then(|conf| conf.check_strictly(&file).map(|()| conf));
        conf.map_err(|error| Failure::from(&error))
    }

    /// Which objects of a module are not for this kernel.
    pub(crate) fn excluded(&self, conf: &Conf, kernel: &Kernel) -> Excluded {
        // Some 10,000 lines, which few confs ask for.
        let file = if conf.asks_config() { kernel.config_file() } else { None };
        let mut configs = of(&self.configs);
        let config = file.and_then(|file| {
            let read = |file: &PathBuf| KernelConfig::read(file).ok();
            configs.entry(file).or_insert_with_key(read).as_ref()
        });
        conf.excluded(&kernel.release, &self.site.arch, config)
    }

    /// What the administrator lays over a module: `/etc/dkms/M*.conf` and all below `/etc/dkms/M`.
    pub(crate) fn overrides(&self, id: &ModuleId) -> Digest {
        let etc = &self.site.trees.etc;
        let mut parts: BTreeMap<PathBuf, Digest> = BTreeMap::new();
        let prefix = [format!("{}.conf", id.name), format!("{}-", id.source_dir())];
        let short = [format!("{}.conf", id.source_dir()), format!("{}--", id.name)];
        for entry in fs::read_dir(etc).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name == prefix[0]
                || name == short[0]
                || ((name.starts_with(&prefix[1]) || name.starts_with(&short[1]))
                    && name.ends_with(".conf"));
            if ours && let Ok(digest) = Digest::of_file(&entry.path()) {
                parts.insert(entry.path(), digest);
            }
        }
        let files = walkdir::WalkDir::new(etc.join(&id.name)).into_iter().flatten();
        for entry in files.filter(|entry| entry.file_type().is_file()) {
            if let Ok(digest) = Digest::of_file(entry.path()) {
                parts.insert(entry.into_path(), digest);
            }
        }
        if let Some(file) = self.site.settings.build_environment()
            && let Ok(digest) = Digest::of_file(&self.site.trees.inside(&file))
        {
            parts.insert(file, digest);
        }
        let text: Vec<String> =
            parts.iter().map(|(path, digest)| format!("{} {digest}", path.display())).collect();
        Digest::of_bytes(text.join("\n").as_bytes())
    }
}

/// What is shared. A thread that panicked has left it whole.
fn of<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Asking dkms.conf on behalf of one machine: which files, with which variables, in whose name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::conf::{Conf, ConfError, Excluded, Question, Reader, Values};
use crate::digest::Digest;
use crate::facts::Problem;
use crate::kernels::{Kernel, KernelConfig};
use crate::links;
use crate::lock;
use crate::names::ModuleId;
use crate::programs;
use crate::site::Site;

/// The confs of one machine.
pub(crate) struct Confs<'a> {
    site: &'a Site,
    reader: Option<Reader>,
    /// Modules whose conf was out of time once: asking again for each kernel costs as much.
    out_of_time: BTreeMap<ModuleId, Problem>,
    /// What the last answer holds of directives that dkms tells to be deprecated.
    deprecated: Vec<(&'static str, PathBuf)>,
    /// The configurations of kernels that confs asked about.
    configs: BTreeMap<PathBuf, Option<KernelConfig>>,
}

impl<'a> Confs<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        Self {
            site,
            reader: None,
            out_of_time: BTreeMap::new(),
            deprecated: Vec::new(),
            configs: BTreeMap::new(),
        }
    }

    /// Asks the conf of a module that dkms knows.
    pub(crate) fn ask(
        &mut self,
        id: &ModuleId,
        kernel: &Kernel,
    ) -> Result<(Values, Conf), Problem> {
        let trees = &self.site.trees;
        let link = trees.source_link(id);
        let source = links::resolve(&trees.root, &link).unwrap_or(link);
        let values = self.ask_at(id, kernel, &source)?;
        for (directive, file) in std::mem::take(&mut self.deprecated) {
            log::warn!("{directive} is deprecated: it is set in {}", file.display());
        }
        let conf = self.understand(kernel, &source, &values)?;
        if conf.records.is_empty() {
            log::warn!("{}/dkms.conf names no objects: make is run, no more", source.display());
        }
        Ok((values, conf))
    }

    /// Asks the conf in the directory `source`.
    pub(crate) fn ask_at(
        &mut self,
        id: &ModuleId,
        kernel: &Kernel,
        source: &Path,
    ) -> Result<Values, Problem> {
        if let Some(problem) = self.out_of_time.get(id) {
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
        let reader = self.reader.get_or_insert_with(|| {
            let programs = programs::directory(site).ok();
            // A conf that calls dkms is part of this run.
            let env = site.env.clone().with(lock::WITHIN, "1");
            let mut reader = Reader::new(site.tools.clone(), env, programs.as_deref());
            reader.patience = site.settings.conf_timeout();
            reader
        });
        match reader.read(&question) {
            Ok(answer) => {
                if !answer.complaint.trim().is_empty() {
                    log::info!("{}: {}", question.conf_file.display(), answer.complaint.trim());
                }
                self.deprecated = answer.deprecated;
                let mut values = answer.values;
                site.asked.set_directives(&mut values);
                Ok(values)
            }
            Err(error) => {
                let problem = problem(&error);
                if matches!(error, ConfError::TimedOut { .. }) {
                    self.out_of_time.insert(id.clone(), problem.clone());
                }
                Err(problem)
            }
        }
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
    ) -> Result<Conf, Problem> {
        let file = source.join("dkms.conf");
        let conf = Conf::from_values(values, &file, &kernel.release)
            .and_then(|conf| conf.check_strictly(&file).map(|()| conf));
        conf.map_err(|error| problem(&error))
    }

    /// Which objects of a module are not for this kernel.
    pub(crate) fn excluded(&mut self, conf: &Conf, kernel: &Kernel) -> Excluded {
        // Some 10,000 lines, which few confs ask for.
        let file = if conf.asks_config() { kernel.config_file() } else { None };
        let config = file.and_then(|file| {
            let read = |file: &PathBuf| KernelConfig::read(file).ok();
            self.configs.entry(file).or_insert_with_key(read).as_ref()
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

fn problem(error: &ConfError) -> Problem {
    Problem { message: error.to_string(), code: error.exit_code() }
}

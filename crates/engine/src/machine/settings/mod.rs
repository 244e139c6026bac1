//! The administrator's settings: dkms's files and ours, both in `/etc/dkms`.

mod framework;
mod initramfs;
mod own;
mod size;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use framework::Framework;
pub use initramfs::{InitramfsMode, InitramfsSettings};

use crate::machine::Trees;
use crate::objects::CompressionOptions;
use crate::os::bash::{BashReader, PATIENCE};
use crate::os::process::{Environment, Tools};
use own::OwnSettings;

/// How long one module may build by default.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);

/// The size of the build cache by default, in bytes.
const CACHE_SIZE: u64 = 512 << 20;

/// What one job needs: gcc 16 takes 160 MiB for a file of a common size (v4l2loopback), and more for
/// a few of the largest.
const MEMORY_PER_JOB: u64 = 256 * 1024 * 1024;

/// All settings. [`Settings::default`] is what holds without any file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// dkms's own settings.
    pub framework: Framework,
    /// What is done about images that hold modules.
    pub initramfs: InitramfsSettings,
    /// What is wrong with the files, for a person to read.
    pub(crate) problems: Vec<String>,
    jobs: Option<NonZeroUsize>,
    build_timeout: Duration,
    memory_per_job: u64,
    conf_timeout: Duration,
    launcher: Vec<String>,
    compile_once: bool,
    cache_size: u64,
    timings: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            framework: Framework::default(),
            initramfs: InitramfsSettings::default(),
            problems: Vec::new(),
            jobs: None,
            build_timeout: BUILD_TIMEOUT,
            memory_per_job: MEMORY_PER_JOB,
            conf_timeout: PATIENCE,
            launcher: Vec::new(),
            compile_once: true,
            cache_size: CACHE_SIZE,
            timings: None,
        }
    }
}

impl Settings {
    /// Reads `alpm-dkms.toml`, `framework.conf` and `framework.conf.d/*.conf` in `trees.etc`.
    ///
    /// Settings are never a reason to leave a kernel without its modules: what is wrong with a
    /// file becomes one of the [problems](Self::problems), and the defaults hold in its place.
    #[must_use]
    pub(crate) fn read(trees: &Trees, tools: &Tools, env: &Environment) -> Self {
        let mut problems = Vec::new();
        let own = OwnSettings::read(&trees.etc.join("alpm-dkms.toml"), &mut problems);
        let conf_timeout = own.conf.timeout.map_or(PATIENCE, seconds);
        let mut reader = BashReader::new(tools.clone(), env.clone());
        reader.patience = conf_timeout;
        let framework = Framework::read(trees, None, &mut reader, &mut problems);
        Self {
            // What dkms calls unlimited is as many as there are processors, too: one jobserver
            // serves all builds, and would bring the machine to its knees.
            jobs: own.build.jobs.or(framework.parallel_jobs).and_then(NonZeroUsize::new),
            build_timeout: own.build.timeout.map_or(BUILD_TIMEOUT, seconds),
            memory_per_job: own.build.memory_per_job.map_or(MEMORY_PER_JOB, |size| size.0),
            conf_timeout,
            launcher: words(own.build.launcher.as_deref().unwrap_or_default()),
            compile_once: own.build.compile_once.unwrap_or(true),
            cache_size: own.cache.size.map_or(CACHE_SIZE, |size| size.0),
            timings: own
                .build
                .timings
                .filter(|file| !file.as_os_str().is_empty())
                .map(|file| trees.inside(&file)),
            framework,
            initramfs: own.initramfs.known,
            problems,
        }
    }

    /// How many jobs all builds together run at once.
    #[must_use]
    pub(crate) fn jobs(&self) -> usize {
        let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.jobs.map_or_else(processors, NonZeroUsize::get)
    }

    /// Overrides the number of jobs; 0 for one for each processor.
    pub fn set_jobs(&mut self, jobs: usize) {
        self.jobs = NonZeroUsize::new(jobs);
    }

    /// How long one module may build.
    #[must_use]
    pub(crate) fn build_timeout(&self) -> Duration {
        self.build_timeout
    }

    /// How many bytes of memory one job is expected to take; 0 for no bound.
    #[must_use]
    pub(crate) fn memory_per_job(&self) -> u64 {
        self.memory_per_job
    }

    /// The file that gets a page with the times of each run that builds.
    #[must_use]
    pub(crate) fn timings(&self) -> Option<&Path> {
        self.timings.as_deref()
    }

    /// Overrides the file of that page.
    pub fn set_timings(&mut self, file: PathBuf) {
        self.timings = Some(file);
    }

    /// How long one conf may be evaluated.
    #[must_use]
    pub(crate) fn conf_timeout(&self) -> Duration {
        self.conf_timeout
    }

    /// The program with its arguments that is put before every compiler; nothing if there is none.
    #[must_use]
    pub(crate) fn launcher(&self) -> &[String] {
        &self.launcher
    }

    /// Returns true if the modules of a run share compiler results. Not with a launcher, which may
    /// have results of its own.
    #[must_use]
    pub(crate) fn compile_once(&self) -> bool {
        self.compile_once && self.launcher.is_empty()
    }

    /// Returns the maximum size of the build cache in bytes; 0 disables it.
    #[must_use]
    pub fn cache_size(&self) -> u64 {
        self.cache_size
    }

    /// How objects are compressed.
    #[must_use]
    pub(crate) fn compression_options(&self) -> CompressionOptions {
        self.framework.compression.clone()
    }

    /// A file whose exported variables builds get.
    #[must_use]
    pub(crate) fn build_environment(&self) -> Option<PathBuf> {
        self.framework.build_environment.clone()
    }

    /// The trees with those replaced that framework.conf puts elsewhere.
    #[must_use]
    pub fn placed(&self, trees: Trees) -> Trees {
        let below = |tree: &Option<PathBuf>, usual: PathBuf| match tree {
            Some(tree) => trees.root.join(tree.strip_prefix("/").unwrap_or(Path::new(""))),
            None => usual,
        };
        Trees {
            source: below(&self.framework.source_tree, trees.source),
            dkms: below(&self.framework.dkms_tree, trees.dkms),
            install: below(&self.framework.install_tree, trees.install),
            etc: trees.etc,
            root: trees.root,
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A limit from a file, where 0 is none.
fn seconds(seconds: u64) -> Duration {
    if seconds == 0 { Duration::MAX } else { Duration::from_secs(seconds) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;
    use crate::os::process::{Environment, Tools};

    const SHIPPED: &str = include_str!("../../../../../packaging/alpm-dkms.toml");

    /// What is read from these files of `/etc/dkms`.
    fn read(files: &[(&str, &str)]) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        fs::create_dir_all(trees.etc.join("framework.conf.d")).unwrap();
        for (file, text) in files {
            fs::write(trees.etc.join(file), text).unwrap();
        }
        // An exported variable is no setting.
        let env = Environment::fixed().with("symlink_modules", "1");
        let mut settings = Settings::read(&trees, &Tools::default(), &env);
        let etc = trees.etc.to_str().unwrap();
        settings.problems.iter_mut().for_each(|problem| *problem = problem.replace(etc, ""));
        settings
    }

    #[test]
    fn without_files_the_defaults_hold() {
        assert_eq!(read(&[]), Settings::default());
        assert!(Settings::default().jobs() > 0);
    }

    #[test]
    fn the_shipped_file_says_what_holds_anyway() {
        assert_eq!(read(&[("alpm-dkms.toml", SHIPPED)]), Settings::default());
        let key = |line: &str| {
            line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line).to_owned()
        };
        let said: Vec<_> = SHIPPED.lines().map(key).collect();
        assert!(said.contains(&"jobs = 0".to_owned()));
        assert_eq!(read(&[("alpm-dkms.toml", &said.join("\n"))]), Settings::default());
    }

    #[test]
    fn every_key_is_in_the_man_page() {
        let page = include_str!("../../../../../man/alpm-dkms.7");
        let mut section = "";
        for line in SHIPPED.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            }
            let key = line.split_once(" = ").and_then(|(key, _)| key.strip_prefix('#'));
            if let Some(key) = key.filter(|key| !key.contains(' ')) {
                let entry = format!("\n.It Ic {section}.{key}\n");
                assert!(page.contains(&entry), "{section}.{key}");
            }
        }
    }

    #[test]
    fn takes_our_own_keys() {
        let text = "[build]\njobs = 3\ntimeout = 0\nmemory_per_job = '1G'\ntimings = '/t.html'\n[conf]\ntimeout = 2\n\
                    [cache]\nsize = '3M'\n";
        let settings = read(&[("alpm-dkms.toml", text), ("framework.conf", "parallel_jobs=9")]);
        assert_eq!(settings.problems, Vec::<String>::new());
        assert_eq!((settings.jobs(), settings.build_timeout()), (3, Duration::MAX));
        assert_eq!(settings.conf_timeout(), Duration::from_secs(2));
        assert_eq!(settings.cache_size(), 3 << 20);
        assert!(settings.timings().is_some_and(|file| file.ends_with("t.html")));
        assert_eq!(settings.memory_per_job(), 1 << 30);
    }

    #[test]
    fn a_launcher_may_have_arguments() {
        let settings = read(&[("alpm-dkms.toml", "[build]\nlauncher = 'env  A=b ccache '\n")]);
        assert_eq!(settings.launcher(), ["env", "A=b", "ccache"]);
    }

    #[rstest]
    #[case::unlimited("parallel_jobs=0", None)]
    #[case::some("parallel_jobs=\"7\"\r\n", NonZeroUsize::new(7))]
    fn takes_the_jobs_of_dkms(#[case] text: &str, #[case] jobs: Option<NonZeroUsize>) {
        let settings = read(&[("framework.conf", text)]);
        assert_eq!((settings.jobs, settings.problems), (jobs, vec![]));
    }

    #[test]
    fn reads_the_files_of_dkms_in_their_order() {
        let files = [
            ("framework.conf.d/b.conf", "dkms_tree=${dkms_tree}2; post_transaction='echo $HOME'"),
            ("framework.conf.d/a.conf", "dkms_tree=/a; verbose=1; helper=x"),
            ("framework.conf.d/.c.conf", "dkms_tree=/hidden"),
            ("framework.conf.d/c.conf~", "dkms_tree=/backup"),
            ("framework.conf", "dkms_tree=/first; compress_zstd_opts='-q -19'; root=/"),
        ];
        let settings = read(&files);
        let framework = &settings.framework;
        assert_eq!(settings.problems, Vec::<String>::new());
        assert_eq!(framework.dkms_tree.as_deref(), Some(Path::new("/a2")));
        assert_eq!(framework.post_transaction.as_deref(), Some("echo $HOME"));
        assert_eq!(settings.compression_options().zstd, ["-q", "-19"]);
        assert_eq!(settings.compression_options().xz, CompressionOptions::default().xz);
        assert!(framework.verbose && !framework.symlink_modules);
        let trees = settings.placed(Trees::under("/mnt".as_ref()));
        assert_eq!(trees, Trees { dkms: "/mnt/a2".into(), ..Trees::under("/mnt".as_ref()) });
    }

    #[test]
    fn settings_can_be_those_for_one_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        fs::create_dir_all(&trees.etc).unwrap();
        let text = r#"mok_signing_key="/k/$kernelver.key"; sign_file='/s/${kernelver}/sign'"#;
        fs::write(trees.etc.join("framework.conf"), text).unwrap();
        let mut reader = BashReader::new(Tools::default(), Environment::fixed());
        let kernel = "7.2.1".parse().unwrap();
        let framework = Framework::read(&trees, Some(&kernel), &mut reader, &mut Vec::new());
        assert_eq!(framework.mok_signing_key.as_deref(), Some(Path::new("/k/7.2.1.key")));
        assert_eq!(framework.sign_file.as_deref(), Some(Path::new("/s/7.2.1/sign")));
    }

    #[test]
    fn what_is_broken_is_reported_and_the_defaults_hold() {
        let files = [
            ("alpm-dkms.toml", "[build]\njobs = 'many'\n"),
            ("framework.conf", "verbose=1; exit 1"),
            (
                "framework.conf.d/a.conf",
                "parallel_jobs=some; dkms_tree=var/lib; source_tree=/usr/../x",
            ),
        ];
        let settings = read(&files);
        let problems = settings.problems.clone();
        assert_eq!(settings, Settings { problems, ..Settings::default() });
        insta::assert_snapshot!(settings.problems.join("\n"), @r#"
        /alpm-dkms.toml is not used: TOML parse error at line 2, column 8
          |
        2 | jobs = 'many'
          |        ^^^^^^
        invalid type: string "many", expected usize
        /framework.conf was not read to its end: it leaves the shell that reads it
          run: bash -x /framework.conf
        source_tree in framework.conf must be an absolute path without ..: /usr/../x
        dkms_tree in framework.conf must be an absolute path without ..: var/lib
        parallel_jobs in framework.conf is no number: "some"
        "#);
    }

    #[test]
    fn unknown_keys_are_reported_and_the_rest_holds() {
        let text = "colour = 1\n[build]\njobs = 2\njob = 3\n[signing]\nkey = 'x'\n";
        let settings = read(&[("alpm-dkms.toml", text)]);
        assert_eq!(settings.jobs(), 2);
        insta::assert_snapshot!(settings.problems.join("\n"), @"
        /alpm-dkms.toml has an unknown key: colour
        /alpm-dkms.toml has an unknown key: signing
        /alpm-dkms.toml has an unknown key: build.job
        ");
    }
}

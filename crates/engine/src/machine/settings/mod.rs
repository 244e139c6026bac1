//! The administrator's settings in `/etc/dkms`: `alpm-dkms.toml` and dkms's own files.

mod framework;
mod initramfs;
mod notify;
mod own;
mod preflight;
mod recovery;
mod size;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use framework::Framework;
pub use initramfs::{InitramfsMode, InitramfsSettings};
pub use notify::NotifySettings;
pub use preflight::{PreflightMode, PreflightSettings};

use crate::machine::Trees;
use crate::names::ModuleName;
use crate::objects::CompressionOptions;
use crate::os::bash::{BashReader, PATIENCE};
use crate::os::process::{Environment, Tools};
use own::{OwnSettings, Preference};

/// The default timeout for building one module.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);

/// The default maximum size of the build cache, in bytes.
const CACHE_SIZE: u64 = 512 << 20;

/// The default for the memory that one job needs, in bytes. gcc 16 needs 160 MiB for a file of
/// average size (v4l2loopback), and more for a few large files.
const MEMORY_PER_JOB: u64 = 256 * 1024 * 1024;

/// All settings of a machine. [`Settings::default`] applies if there are no settings files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The settings in dkms's own files.
    pub framework: Framework,
    /// The `[initramfs]` section of `alpm-dkms.toml`.
    pub initramfs: InitramfsSettings,
    /// The `[notify]` section of `alpm-dkms.toml`.
    pub notify: NotifySettings,
    /// The `[preflight]` section of `alpm-dkms.toml`.
    pub preflight: PreflightSettings,
    problems: Vec<String>,
    jobs: Option<NonZeroUsize>,
    build_timeout: Duration,
    memory_per_job: u64,
    conf_timeout: Duration,
    launcher: Vec<String>,
    compile_once: bool,
    cache_size: u64,
    timings: Option<PathBuf>,
    pin_file: Option<PathBuf>,
    /// The modules to install even if the kernel ships the same or a newer version.
    preferred: BTreeSet<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            framework: Framework::default(),
            initramfs: InitramfsSettings::default(),
            notify: NotifySettings::default(),
            preflight: PreflightSettings::default(),
            problems: Vec::new(),
            jobs: None,
            build_timeout: BUILD_TIMEOUT,
            memory_per_job: MEMORY_PER_JOB,
            conf_timeout: PATIENCE,
            launcher: Vec::new(),
            compile_once: true,
            cache_size: CACHE_SIZE,
            timings: None,
            pin_file: None,
            preferred: BTreeSet::new(),
        }
    }
}

impl Settings {
    /// Reads `alpm-dkms.toml`, `framework.conf` and `framework.conf.d/*.conf` in `trees.etc`.
    ///
    /// An invalid setting must not leave a kernel without its modules. Therefore, the default
    /// applies, and a message is added to [`problems`](Self::problems).
    #[must_use]
    pub(crate) fn read(trees: &Trees, tools: &Tools, env: &Environment) -> Self {
        let mut problems = Vec::new();
        let own = OwnSettings::read(&trees.etc.join("alpm-dkms.toml"), &mut problems);
        let conf_timeout = own.conf.timeout.map_or(PATIENCE, seconds);
        let mut reader = BashReader::new(tools.clone(), env.clone());
        reader.patience = conf_timeout;
        let framework = Framework::read(trees, None, &mut reader, &mut problems);
        let named = |file: Option<PathBuf>| {
            file.filter(|file| !file.as_os_str().is_empty()).map(|file| trees.inside(&file))
        };
        Self {
            // 0 means unlimited in dkms, but one per processor here: an unlimited jobserver for all
            // builds would overload the machine.
            jobs: own.build.jobs.or(framework.parallel_jobs).and_then(NonZeroUsize::new),
            build_timeout: own.build.timeout.map_or(BUILD_TIMEOUT, seconds),
            memory_per_job: own.build.memory_per_job.map_or(MEMORY_PER_JOB, |size| size.0),
            conf_timeout,
            launcher: words(own.build.launcher.as_deref().unwrap_or_default()),
            compile_once: own.build.compile_once.unwrap_or(true),
            cache_size: own.cache.size.map_or(CACHE_SIZE, |size| size.0),
            timings: named(own.build.timings),
            pin_file: named(own.signing.pin_file),
            preferred: own
                .module
                .into_iter()
                .filter(|(_, module)| module.prefer == Some(Preference::Dkms))
                .map(|(name, _)| name)
                .collect(),
            framework,
            initramfs: own.initramfs.known,
            notify: own.notify.known,
            preflight: own.preflight.known,
            problems,
        }
    }

    /// Returns the maximum number of parallel jobs for all builds together.
    #[must_use]
    pub(crate) fn jobs(&self) -> usize {
        let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.jobs.map_or_else(processors, NonZeroUsize::get)
    }

    /// Sets the maximum number of parallel jobs; 0 means one per processor.
    pub fn set_jobs(&mut self, jobs: usize) {
        self.jobs = NonZeroUsize::new(jobs);
    }

    /// Returns the timeout for building one module.
    #[must_use]
    pub(crate) fn build_timeout(&self) -> Duration {
        self.build_timeout
    }

    /// Returns the memory that one job is expected to use, in bytes. If it is 0, memory does not
    /// limit the number of jobs.
    #[must_use]
    pub(crate) fn memory_per_job(&self) -> u64 {
        self.memory_per_job
    }

    /// Returns the output file for the HTML timeline of a run, or `None` if no timeline is written.
    #[must_use]
    pub(crate) fn timings(&self) -> Option<&Path> {
        self.timings.as_deref()
    }

    /// Sets the output file for the HTML timeline of a run.
    pub fn set_timings(&mut self, file: PathBuf) {
        self.timings = Some(file);
    }

    /// Returns the file that contains the PIN of the token or the passphrase of the signing key, or
    /// `None` if it is not set.
    #[must_use]
    pub(crate) fn pin_file(&self) -> Option<&Path> {
        self.pin_file.as_deref()
    }

    /// Returns the messages for the user about invalid settings. Each binary prints them, in every
    /// run.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Returns the timeout for evaluating one conf.
    #[must_use]
    pub(crate) fn conf_timeout(&self) -> Duration {
        self.conf_timeout
    }

    /// Returns the compiler launcher and its arguments, or an empty slice if none is configured.
    #[must_use]
    pub(crate) fn launcher(&self) -> &[String] {
        &self.launcher
    }

    /// Returns true if the modules of a run share compiler results. Returns false if a launcher is
    /// configured, since it may have its own cache.
    #[must_use]
    pub(crate) fn compile_once(&self) -> bool {
        self.compile_once && self.launcher.is_empty()
    }

    /// Returns true if the module is installed even if the kernel has the same or a newer one.
    #[must_use]
    pub(crate) fn prefers_dkms(&self, name: &ModuleName) -> bool {
        self.preferred.contains(name.as_str())
    }

    /// Returns the maximum size of the build cache in bytes; 0 disables the cache.
    #[must_use]
    pub fn cache_size(&self) -> u64 {
        self.cache_size
    }

    /// Returns the options of the programs that compress objects.
    #[must_use]
    pub(crate) fn compression_options(&self) -> CompressionOptions {
        self.framework.compression.clone()
    }

    /// Returns the shell file whose exported variables are added to the environment of builds, or
    /// `None` if it is not set.
    #[must_use]
    pub(crate) fn build_environment(&self) -> Option<PathBuf> {
        self.framework.build_environment.clone()
    }

    /// Returns `trees` with the paths from `framework.conf` in place of the defaults.
    #[must_use]
    pub fn relocate(&self, trees: Trees) -> Trees {
        let below = |tree: &Option<PathBuf>, usual: PathBuf| match tree {
            Some(tree) => trees.root.join(tree.strip_prefix("/").unwrap_or(Path::new(""))),
            None => usual,
        };
        Trees {
            source: below(&self.framework.source_tree, trees.source),
            dkms: below(&self.framework.dkms_tree, trees.dkms),
            install: below(&self.framework.install_tree, trees.install),
            etc: trees.etc,
            build_cache: trees.build_cache,
            package_lists: trees.package_lists,
            root: trees.root,
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Converts a timeout in seconds from a settings file. 0 means no timeout.
fn seconds(seconds: u64) -> Duration {
    if seconds == 0 { Duration::MAX } else { Duration::from_secs(seconds) }
}

#[cfg(test)]
mod documentation;

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;
    use crate::os::process::{Environment, Tools};

    const SHIPPED: &str = include_str!("../../../../../packaging/alpm-dkms.toml");

    /// Returns the settings of a machine with the given files in `/etc/dkms`, each a name and its
    /// content.
    fn read<T: AsRef<[u8]>>(files: &[(&str, T)]) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        fs::create_dir_all(trees.etc.join("framework.conf.d")).unwrap();
        for (file, text) in files {
            fs::write(trees.etc.join(file), text).unwrap();
        }
        // A variable in the environment must not count as a setting.
        let env = Environment::fixed().with("symlink_modules", "1");
        let mut settings = Settings::read(&trees, &Tools::default(), &env);
        let etc = trees.etc.to_str().unwrap();
        settings.problems.iter_mut().for_each(|problem| *problem = problem.replace(etc, ""));
        settings
    }

    #[test]
    fn defaults_apply_without_settings_files() {
        assert_eq!(read::<&str>(&[]), Settings::default());
        assert!(Settings::default().jobs() > 0);
    }

    #[test]
    fn shipped_file_has_the_default_values() {
        assert_eq!(read(&[("alpm-dkms.toml", SHIPPED)]), Settings::default());
        let key = |line: &str| {
            line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line).to_owned()
        };
        let lines: Vec<_> = SHIPPED.lines().map(key).collect();
        assert!(lines.contains(&"jobs = 0".to_owned()));
        assert_eq!(read(&[("alpm-dkms.toml", &lines.join("\n"))]), Settings::default());
    }

    #[test]
    fn reads_alpm_dkms_toml() {
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

    #[rstest]
    #[case::off("mode = 'off'", PreflightMode::Off, Duration::from_secs(1800), &[])]
    #[case::warn("mode = 'warn'\ntimeout = 60", PreflightMode::Warn, Duration::from_secs(60), &[])]
    #[case::no_timeout("timeout = 0", PreflightMode::Critical, Duration::MAX, &[])]
    #[case::modules(
        "mode = 'critical'\ncritical = ['zfs/2.4', 'ax-usb-nic']",
        PreflightMode::Critical,
        Duration::from_secs(1800),
        &["zfs", "ax_usb_nic"]
    )]
    #[case::one_module(
        "critical = 'zfs'",
        PreflightMode::Critical,
        Duration::from_secs(1800),
        &["zfs"]
    )]
    fn reads_the_preflight_section(
        #[case] text: &str,
        #[case] mode: PreflightMode,
        #[case] timeout: Duration,
        #[case] critical: &[&str],
    ) {
        let settings = read(&[("alpm-dkms.toml", &format!("[preflight]\n{text}\n"))]);
        assert_eq!(settings.problems, [""; 0]);
        let preflight = settings.preflight;
        assert_eq!((preflight.mode, preflight.timeout()), (mode, timeout));
        assert_eq!(preflight.critical, critical);
    }

    #[rstest]
    #[case::mode("mode = 'abort'")]
    #[case::timeout("timeout = '5m'")]
    #[case::modules("critical = 5")]
    fn invalid_preflight_settings_are_reported(#[case] text: &str) {
        let settings = read(&[("alpm-dkms.toml", &format!("[preflight]\n{text}\n"))]);
        let [problem] = &settings.problems[..] else { panic!("{:?}", settings.problems) };
        assert!(problem.starts_with("/alpm-dkms.toml: preflight."), "{problem}");
        assert_eq!(settings.preflight, PreflightSettings::default());
    }

    #[test]
    fn an_invalid_value_does_not_affect_other_keys() {
        let text = "cache = 3\n[build]\njobs = 'many'\nlauncher = 'ccache'\n\
                    [preflight]\nmode = 'off'\ntimeot = 5\n\
                    [module.a]\nprefer = 'mine'\n[module.b]\nprefer = 'dkms'\n";
        let settings = read(&[("alpm-dkms.toml", text)]);
        assert_eq!(settings.preflight.mode, PreflightMode::Off);
        assert_eq!(settings.launcher(), ["ccache"]);
        assert!(settings.prefers_dkms(&"b".parse().unwrap()));
        insta::assert_snapshot!(settings.problems.join("\n"), @r#"
        /alpm-dkms.toml: build.jobs: ignored: invalid type: string "many", expected a non-negative number
        /alpm-dkms.toml: cache: ignored: invalid type: integer `3`, expected a section
        /alpm-dkms.toml: module.a.prefer: ignored: unknown variant `mine`, expected `dkms` or `kernel`
        /alpm-dkms.toml: unknown key: preflight.timeot
        "#);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_affect_the_settings_before_them() {
        let settings = read(&[("alpm-dkms.toml", b"[preflight]\ncritical = ['zfs']\n\xff\xfe\n")]);
        assert_eq!(settings.preflight.critical, ["zfs"]);
        let [problem] = &settings.problems[..] else { panic!("{:?}", settings.problems) };
        assert!(problem.contains("/alpm-dkms.toml: line 3: "), "{problem}");
    }

    #[test]
    fn launcher_can_have_arguments() {
        let settings = read(&[("alpm-dkms.toml", "[build]\nlauncher = 'env  A=b ccache '\n")]);
        assert_eq!(settings.launcher(), ["env", "A=b", "ccache"]);
    }

    #[rstest]
    #[case::unlimited("parallel_jobs=0", None)]
    #[case::some("parallel_jobs=\"7\"\r\n", NonZeroUsize::new(7))]
    fn reads_parallel_jobs(#[case] text: &str, #[case] jobs: Option<NonZeroUsize>) {
        let settings = read(&[("framework.conf", text)]);
        assert_eq!((settings.jobs, settings.problems), (jobs, vec![]));
    }

    #[test]
    fn later_framework_files_override_earlier_ones() {
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
        let trees = settings.relocate(Trees::under("/mnt".as_ref()));
        assert_eq!(trees, Trees { dkms: "/mnt/a2".into(), ..Trees::under("/mnt".as_ref()) });
    }

    #[test]
    fn settings_can_depend_on_the_kernel() {
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
    fn invalid_settings_are_reported_and_replaced_with_defaults() {
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
        let unread = settings.framework.unread.clone();
        assert!(unread.as_ref().is_some_and(|file| file.ends_with("framework.conf")));
        let framework = Framework { unread, ..Framework::default() };
        assert_eq!(settings, Settings { problems, framework, ..Settings::default() });
        insta::assert_snapshot!(settings.problems.join("\n"), @r#"
        /alpm-dkms.toml: build.jobs: ignored: invalid type: string "many", expected a non-negative number
        /framework.conf: evaluation ended early: the file exits the shell
          run: bash -x /framework.conf
        /framework.conf.d/a.conf: invalid value for source_tree: "/usr/../x" (expected an absolute path without ..)
        /framework.conf.d/a.conf: invalid value for dkms_tree: "var/lib" (expected an absolute path without ..)
        /framework.conf.d/a.conf: invalid value for parallel_jobs: "some" (expected a number)
        "#);
    }

    #[rstest]
    #[case::overridden("parallel_jobs=x", "parallel_jobs=y", "b")]
    #[case::only_in_the_first("dkms_tree=x", "verbose=1", "a")]
    #[case::set_again("install_tree=x", "install_tree=x", "a")]
    fn problem_names_the_file_that_set_the_value(
        #[case] first: &str,
        #[case] second: &str,
        #[case] file: &str,
    ) {
        let files = [("framework.conf.d/a.conf", first), ("framework.conf.d/b.conf", second)];
        let settings = read(&files);
        let [problem] = &settings.problems[..] else { panic!("{:?}", settings.problems) };
        assert!(problem.starts_with(&format!("/framework.conf.d/{file}.conf: ")), "{problem}");
    }

    #[rstest]
    #[case::nothing("", None)]
    #[case::missing_locale("bash: warning: setlocale: LC_ALL: cannot change locale (xx)", None)]
    #[case::of_bash("/f: line 2: x: command not found", Some("/f: line 2: x: command not found"))]
    #[case::of_a_program("cat: /x: No such file", Some("/f: cat: /x: No such file"))]
    fn reports_what_bash_writes(#[case] written: &str, #[case] problem: Option<&str>) {
        assert_eq!(framework::complaint(Path::new("/f"), written).as_deref(), problem);
    }

    #[rstest]
    #[case::dkms("[module.screenpad]\nprefer = 'dkms'\n", true)]
    #[case::dotted("module.screenpad.prefer = 'dkms'\n", true)]
    #[case::kernel("[module.screenpad]\nprefer = 'kernel'\n", false)]
    #[case::another("[module.screen]\nprefer = 'dkms'\n", false)]
    #[case::empty("[module.screenpad]\n", false)]
    fn modules_can_be_preferred(#[case] text: &str, #[case] want: bool) {
        let settings = read(&[("alpm-dkms.toml", text)]);
        assert_eq!(settings.problems, [""; 0]);
        assert_eq!(settings.prefers_dkms(&"screenpad".parse().unwrap()), want);
    }

    #[test]
    fn unknown_keys_are_reported_and_ignored() {
        let text = "colour = 1\n[build]\njobs = 2\njob = 3\n[signing]\nkey = 'x'\n\
                    [preflight]\nmodes = 'off'\n[module.foo]\nprefers = 'dkms'\n";
        let settings = read(&[("alpm-dkms.toml", text)]);
        assert_eq!(settings.jobs(), 2);
        insta::assert_snapshot!(settings.problems.join("\n"), @"
        /alpm-dkms.toml: unknown key: colour
        /alpm-dkms.toml: unknown key: build.job
        /alpm-dkms.toml: unknown key: preflight.modes
        /alpm-dkms.toml: unknown key: signing.key
        /alpm-dkms.toml: unknown key: module.foo.prefers
        ");
    }
}

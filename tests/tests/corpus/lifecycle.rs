//! Adds, builds, installs, lists and removes a module with one implementation of dkms.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use stories::{Completed, Root, find};

use crate::source_package::SourcePackage;

/// The time limit of a command. It is generous because the machine may be busy.
const LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

/// The commands, in order.
pub const STEPS: [&str; 5] = ["add", "build", "install", "status", "remove"];

/// An implementation of dkms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// Debian's dkms.
    Dkms,
    /// alpm-dkms.
    Ours,
}

/// The result of one program for a module.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    /// The result that is compared.
    pub observed: Observed,
    /// The uncompressed contents of the installed objects, by path.
    pub contents: BTreeMap<String, Vec<u8>>,
    /// The output of all commands, for reports of differences.
    pub output: String,
    /// If nothing was installed, the first error in make.log, or the missing dependency.
    pub error: Option<String>,
}

/// The results that must be equal for both programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The exit code of each of the [`STEPS`].
    pub codes: [i32; STEPS.len()],
    /// The output of `dkms status` before the module is removed.
    pub status: String,
    /// The installed objects at that time.
    pub objects: Vec<Object>,
    /// The paths in the dkms tree and the kernels' directories after the removal, without headers.
    pub left: Vec<String>,
}

/// An installed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The path relative to the kernel's directory.
    pub path: String,
    /// The fields `version`, `vermagic` and `depends` of modinfo, one a line.
    pub modinfo: String,
}

impl Lifecycle {
    /// Runs all [`STEPS`] on a machine, for the kernel with this alias.
    pub fn run(root: &Root, program: Implementation, source: &SourcePackage, kernel: &str) -> Self {
        let release = find(kernel).release().to_owned();
        let module = source.module.as_str();
        root.copy_stage(&source.files);
        let mut log = String::new();
        let mut run = |args: &[&str]| {
            let name = match program {
                Implementation::Dkms => "/opt/peer/usr/sbin/dkms",
                Implementation::Ours => "/usr/bin/dkms",
            };
            let output = root.start(name, args).within(LIMIT).finish();
            log.push_str(&format!("$ dkms {}\n{}", args.join(" "), output.text));
            log.push_str(&format!("exit {}\n", output.code));
            output
        };
        let add = run(&["add", module]);
        let build = run(&["build", module, "-k", &release]);
        let install = run(&["install", module, "-k", &release]);
        let status = run(&["status", module]);
        let objects = objects(root, &release);
        let contents = contents(root, &release, &objects);
        let error = compiler_error(root, module).or_else(|| missing_dependency(&build));
        let error = error.filter(|_| objects.is_empty());
        let remove = run(&["remove", module, "--all"]);
        let observed = Observed {
            codes: [add, build, install, status.clone(), remove].map(|output| output.code),
            status: status.text,
            objects,
            left: left(root),
        };
        Self { observed, contents, output: log, error }
    }
}

/// Returns the installed objects of a kernel, without its own, in order.
fn objects(root: &Root, release: &str) -> Vec<Object> {
    let modinfo = |path: &String| {
        let file = format!("/usr/lib/modules/{release}/{path}");
        let fields = root.run("modinfo", &[&file]).ok().text;
        let wanted = |line: &&str| {
            ["version:", "vermagic:", "depends:"].iter().any(|field| line.starts_with(field))
        };
        fields.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
    };
    let placed = root.installed_objects(release).into_iter();
    placed.map(|path| Object { modinfo: modinfo(&path), path }).collect()
}

/// Returns the uncompressed contents of installed objects.
fn contents(root: &Root, release: &str, objects: &[Object]) -> BTreeMap<String, Vec<u8>> {
    let read = |object: &Object| {
        let file = format!("/usr/lib/modules/{release}/{}", object.path);
        let program = match object.path.rsplit('.').next() {
            Some("zst") => "zstd -dqc",
            Some("xz") => "xz -dc",
            Some("gz") => "gzip -dc",
            _ => "cat",
        };
        root.shell(&format!("{program} '{file}' >/srv/object")).ok();
        fs::read(root.path("srv/object")).expect("read an uncompressed object")
    };
    objects.iter().map(|object| (object.path.clone(), read(object))).collect()
}

/// Returns the first error in the module's make.log, starting with the path of the source file, or
/// `None` if there is none.
fn compiler_error(root: &Root, module: &str) -> Option<String> {
    let log = format!("/var/lib/dkms/{module}/build/make.log");
    let found = root.run("grep", &["-m1", "-E", "[Ee]rror: |ERROR: |Error [0-9]", &log]);
    let line = found.text.lines().next().filter(|_| found.code == 0)?;
    Some(line.rsplit_once("/build/").map_or(line, |(_, line)| line).to_owned())
}

/// Returns the part of the output that names a missing dependency, or `None`.
fn missing_dependency(build: &Completed) -> Option<String> {
    let lines = &mut build.text.lines();
    lines.find_map(|line| Some(line[line.find("depends on")?..].to_owned()))
}

/// Returns the paths in the dkms tree and the kernels' directories, without headers and the private
/// files of either program.
fn left(root: &Root) -> Vec<String> {
    let own = |path: &str| path.starts_with('.') || path.starts_with("mok.");
    let tree = root.snapshot("var/lib/dkms").without(own).paths();
    let headers = |path: &str| path.split('/').nth(1) == Some("build");
    let kernels = root.snapshot("usr/lib/modules").without(headers).paths();
    let named = |top: &'static str, paths: Vec<String>| {
        paths.into_iter().map(move |path| format!("{top}/{path}"))
    };
    named("T", tree).chain(named("L", kernels)).collect()
}

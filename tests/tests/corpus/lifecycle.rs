//! One module under one implementation of dkms: add, build, install, status, remove, and what is compared of it.

use std::time::Duration;

use stories::{Completed, Root, find};

use crate::source_package::SourcePackage;

/// How long one command may take, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

/// The commands, in their order.
pub const STEPS: [&str; 5] = ["add", "build", "install", "status", "remove"];

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// Debian's dkms.
    Dkms,
    /// Our own.
    Ours,
}

/// What one program did with a module.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    /// What is compared.
    pub seen: Observed,
    /// All that was said, for those who look into a difference.
    pub said: String,
    /// If nothing was placed, the first complaint in the log of make, or why there is none.
    pub complaint: Option<String>,
}

/// What has to be the same with both programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The exit code of each of the [`STEPS`].
    pub codes: [i32; STEPS.len()],
    /// What `dkms status` says before the module is removed.
    pub status: String,
    /// What is placed for the kernel then.
    pub objects: Vec<Object>,
    /// What stands in the trees afterwards, but for the kernel's own files.
    pub left: Vec<String>,
}

/// An object that is placed for a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its path below the kernel's directory.
    pub path: String,
    /// The fields `version`, `vermagic` and `depends` that modinfo reads in it, one a line.
    pub modinfo: String,
}

impl Lifecycle {
    /// Goes all the way on a machine that is thrown away afterwards.
    pub fn run(root: &Root, program: Implementation, source: &SourcePackage) -> Self {
        let release = find("linux-1").release().to_owned();
        let module = source.module.as_str();
        root.lay_over(&source.files);
        let mut said = String::new();
        let mut run = |args: &[&str]| {
            let name = match program {
                Implementation::Dkms => "/opt/peer/usr/sbin/dkms",
                Implementation::Ours => "/usr/bin/dkms",
            };
            let output = root.start(name, args).within(LIMIT).finish();
            said.push_str(&format!("$ dkms {}\n{}", args.join(" "), output.text));
            said.push_str(&format!("exit {}\n", output.code));
            output
        };
        let add = run(&["add", module]);
        let build = run(&["build", module, "-k", &release]);
        let install = run(&["install", module, "-k", &release]);
        let status = run(&["status", module]);
        let objects = objects(root, &release);
        let complaint = complaint(root, module).or_else(|| refusal(&build));
        let complaint = complaint.filter(|_| objects.is_empty());
        let remove = run(&["remove", module, "--all"]);
        let seen = Observed {
            codes: [add, build, install, status.clone(), remove].map(|output| output.code),
            status: status.text,
            objects,
            left: left(root, &release),
        };
        Self { seen, said, complaint }
    }
}

/// The objects that are placed for a kernel beside its own, in order.
fn objects(root: &Root, release: &str) -> Vec<Object> {
    let modinfo = |path: &String| {
        let file = format!("/usr/lib/modules/{release}/{path}");
        let fields = root.run("modinfo", &[&file]).ok().text;
        let wanted = |line: &&str| {
            ["version:", "vermagic:", "depends:"].iter().any(|field| line.starts_with(field))
        };
        fields.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
    };
    let placed = root.placed(release).into_iter();
    placed.map(|path| Object { modinfo: modinfo(&path), path }).collect()
}

/// The first line of a module's last log that tells of an error, from the name of the source file on.
fn complaint(root: &Root, module: &str) -> Option<String> {
    let log = format!("/var/lib/dkms/{module}/build/make.log");
    let found = root.run("grep", &["-m1", "-E", "[Ee]rror: |ERROR: |Error [0-9]", &log]);
    let line = found.text.lines().next().filter(|_| found.code == 0)?;
    Some(line.rsplit_once("/build/").map_or(line, |(_, line)| line).to_owned())
}

/// Why there was nothing to compile.
fn refusal(build: &Completed) -> Option<String> {
    let lines = &mut build.text.lines();
    lines.find_map(|line| Some(line[line.find("it builds upon")?..].to_owned()))
}

/// What stands in the trees of dkms and of the kernel, without what each program keeps for itself.
fn left(root: &Root, release: &str) -> Vec<String> {
    let own = |path: &str| path.starts_with('.') || path.starts_with("mok.");
    let tree = root.picture("var/lib/dkms").without(own).paths();
    let kernel = format!("usr/lib/modules/{release}");
    let headers = |path: &str| path.starts_with("build/");
    let kernel = root.picture(&kernel).without(headers).paths();
    let named = |top: &'static str, paths: Vec<String>| {
        paths.into_iter().map(move |path| format!("{top}/{path}"))
    };
    named("T", tree).chain(named("L/K", kernel)).collect()
}

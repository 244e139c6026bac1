//! One system call of a hook fails: the hook reports it or its work is complete, the kernel keeps a
//! working module, and a later run finishes the work.

use stories::{Root, Snapshot, find};

use crate::fixture::{machine, object, release, tell};
use crate::killed_hooks::{target, unpack};

/// The program that lets a call fail, inside a root.
const TRACER: &str = "/srv/failing-call";

/// The calls that a signal can interrupt, at least on some file systems.
const INTERRUPTIBLE: &[&str] =
    &["write", "openat", "fsync", "ftruncate", "copy_file_range", "sendfile"];

/// An error with its number.
type Errno = (&'static str, u8);

const INTERRUPTED: Errno = ("EINTR", 4);
const IO: Errno = ("EIO", 5);
const AGAIN: Errno = ("EAGAIN", 11);
const NO_SPACE: Errno = ("ENOSPC", 28);

/// A run of a hook that changes the module bbswitch.
struct Trial {
    /// The machine before the run.
    before: Root,
    program: &'static str,
    /// The target on standard input.
    target: String,
    /// The objects of bbswitch before and after the run.
    objects: [Option<Vec<u8>>; 2],
    /// The trees after an undisturbed run.
    trees: [Snapshot; 2],
}

impl Trial {
    /// Describes a run of `program` on a machine whose packages have been unpacked.
    fn new(before: Root, program: &'static str) -> Self {
        let source = include_str!("../../src/failing_call.c");
        before.write("srv/failing-call.c", source);
        before.shell(&format!("gcc -O1 -Wall -Werror -o {TRACER} {TRACER}.c")).ok();
        let target = target(find("bbswitch-next").module());
        let whole = before.fork();
        whole.hook(program, target.as_bytes()).ok();
        let objects = [&before, &whole].map(bbswitch);
        let trees = trees(&whole);
        drop(whole);
        Self { before, program, target, objects, trees }
    }

    /// Runs the hook. The call with this number fails, or none if it is 0.
    fn run(&self, root: &Root, number: usize, error: u8) -> stories::Completed {
        root.write("srv/target", &self.target);
        root.shell(&format!(
            "exec {TRACER} /srv/calls {number} {error} /usr/lib/alpm-dkms/{} </srv/target",
            self.program
        ))
    }

    /// Returns the changing calls of an undisturbed run, each with its path.
    fn calls(&self) -> Vec<String> {
        let root = self.before.fork();
        self.run(&root, 0, 0).ok();
        root.read("srv/calls").lines().map(str::to_owned).collect()
    }

    /// Makes each call fail with each of its errors, in a run of its own. If that would need more
    /// than `points` runs, makes only `points` of them, evenly spread.
    #[track_caller]
    fn fail(&self, points: usize) {
        let calls = self.calls();
        assert!(calls.len() > 50, "only {} changes", calls.len());
        let mut trials = Vec::new();
        for (index, line) in calls.iter().enumerate() {
            let call = line.split(' ').next().unwrap_or_default();
            let errors = match call {
                "clone" | "clone3" | "vfork" => &[AGAIN][..],
                call if INTERRUPTIBLE.contains(&call) => &[NO_SPACE, IO, INTERRUPTED],
                _ => &[NO_SPACE, IO],
            };
            trials.extend(errors.iter().map(|error| (index + 1, *error)));
        }
        let points = points.min(trials.len());
        let mut faults = Vec::new();
        for point in 0..points {
            let (number, error) = trials[(2 * point + 1) * trials.len() / (2 * points)];
            if let Err(fault) = self.fail_once(number, error) {
                tell(&format!("fault: {fault}"));
                faults.push(fault);
            }
        }
        assert!(
            faults.is_empty(),
            "{} faults in {points} runs:\n\n{}",
            faults.len(),
            faults.join("\n\n")
        );
        tell(&format!("{points} failing calls of {}, no faults", self.program));
    }

    /// Lets one call fail and returns what is wrong then.
    fn fail_once(&self, number: usize, (name, error): Errno) -> Result<(), String> {
        let root = self.before.fork();
        let output = self.run(&root, number, error);
        let calls = root.read("srv/calls");
        let call = calls.lines().nth(number - 1).unwrap_or("none");
        let text = format!("code {}\n{}", output.code, output.text);
        let fault = |what: &str, more: &str| {
            Err(format!("{what}: {name} for call {number}, {call}: {text}{more}"))
        };
        if output.text.contains("panicked") || !matches!(output.code, 0..=1) {
            return fault("crash", "");
        }
        if !self.objects.contains(&bbswitch(&root)) {
            return fault("object is neither old nor new", "");
        }
        let works = |name: &str| {
            root.indexed(&release(), name)
                .is_some_and(|path| root.exists(&format!("usr/lib/modules/{}/{path}", release())))
        };
        if !works("acpi_call") || (self.objects[1].is_some() && !works("bbswitch")) {
            return fault("module lost", "");
        }
        let wrong = self.missing(&root, false);
        if let (Some(wrong), 0) = (&wrong, output.code) {
            return fault("silence", wrong);
        }
        if output.code != 0 && !output.text.contains("error: ") {
            return fault("no message", "");
        }
        let unit = root.boot_unit();
        let Some(open) = self.missing(&root, true) else { return Ok(()) };
        let again = root.hook(self.program, self.target.as_bytes());
        match self.missing(&root, true) {
            None => Ok(()),
            Some(left) => fault(
                "not finished",
                &format!("unit: {}{open}\nagain: {}{left}", unit.text, again.text),
            ),
        }
    }

    /// Returns the differences from the state after an undisturbed run. If `all` is true, includes
    /// the files that later runs remove.
    fn missing(&self, root: &Root, all: bool) -> Option<String> {
        let mut differences = String::new();
        let counts = |tree: &Snapshot| tree.clone().without(|path| !all && is_swept(path));
        for (is, want) in trees(root).iter().zip(&self.trees) {
            differences += &counts(is).differences(&counts(want));
        }
        if bbswitch(root) != self.objects[1] {
            differences += "\nthe old object";
        }
        (!differences.is_empty()).then_some(differences)
    }
}

/// Returns true if the next run deletes `path` in one of the trees.
fn is_swept(path: &str) -> bool {
    [".bin", ".build"].iter().any(|top| path.starts_with(top)) || path.contains("/.tmp")
}

/// Returns the content of bbswitch's object.
fn bbswitch(root: &Root) -> Option<Vec<u8>> {
    let path = object(&release(), "bbswitch");
    root.exists(&path).then(|| root.bytes(&path))
}

/// Returns the paths in the dkms tree and in the kernel's directory. Logs, the cache, the links to our
/// programs, which only a build creates, and directories that may be empty are left out. So is the notice:
/// the last hook of the transaction, which the trials do not run, has written it before.
fn trees(root: &Root) -> [Snapshot; 2] {
    let tree = root.snapshot("var/lib/dkms");
    let kernel = root.snapshot(&format!("usr/lib/modules/{}", release()));
    [
        tree.without(|path| {
            [".bin", ".notice", ".pending"].contains(&path)
                || path.ends_with("/build")
                || [".bin/target", ".bin/running", ".log", ".cache"]
                    .iter()
                    .any(|top| path.starts_with(top))
        }),
        kernel.without(|path| path.starts_with("build/")),
    ]
}

/// A new version of bbswitch, which the hook finds in the build cache, replaces the old one.
fn upgrade(points: usize) {
    let root = machine(&[find("bbswitch-next"), find("acpi-call")]);
    root.install(&[find("bbswitch")]).hooks_succeed();
    unpack(&root, || drop(root.install(&[find("bbswitch-next")])));
    Trial::new(root, "dkms-install").fail(points);
}

/// bbswitch is removed.
fn removal(points: usize) {
    let root = machine(&[find("bbswitch-next"), find("acpi-call")]);
    unpack(&root, || drop(root.remove(&["bbswitch-dkms"])));
    Trial::new(root, "dkms-remove").fail(points);
}

#[test]
fn failing_calls_of_an_upgrade_are_reported() {
    upgrade(40);
}

#[test]
fn failing_calls_of_a_removal_are_reported() {
    removal(15);
}

#[test]
#[ignore = "takes long: run make check-power"]
fn each_failing_call_of_an_upgrade_is_reported() {
    upgrade(usize::MAX);
}

#[test]
#[ignore = "takes long: run make check-power"]
fn each_failing_call_of_a_removal_is_reported() {
    removal(usize::MAX);
}

//! Hooks are killed at every step: no process remains, and the next run finishes the work.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{PackageFile, Recipe, Root, Snapshot, find};

use crate::fixture::{
    assert_no_processes, assert_status, installed, machine, object, release, traces,
};

/// Runs a transaction without our PostTransaction hooks.
pub(crate) fn unpack(root: &Root, transaction: impl Fn()) {
    let masks = ["70-dkms-install", "71-dkms-remove"]
        .map(|hook| format!("/etc/pacman.d/hooks/{hook}.hook"));
    for mask in &masks {
        root.shell(&format!("ln -s /dev/null {mask}")).ok();
    }
    transaction();
    root.shell(&format!("rm {}", masks.join(" "))).ok();
}

/// A run of one of our hook programs, to be interrupted.
struct Run {
    /// The machine before the run.
    before: Root,
    program: &'static str,
    /// The target on standard input.
    target: String,
}

impl Run {
    /// Kills the program at `points` moments spread over its run time.
    #[track_caller]
    fn kill_at_moments(&self, points: u32, finish: impl Fn(&Root)) {
        let whole = self.before.fork();
        let start = Instant::now();
        whole.hook(self.program, self.target.as_bytes()).ok();
        let mut duration = start.elapsed();
        let want = end(&whole, &finish);
        let mut killed = 0;
        for point in 0..points {
            let root = self.before.fork();
            let mut hook = root.start_hook(self.program, self.target.as_bytes());
            let moment = duration * point / points;
            sleep(moment);
            let ended = hook.has_ended();
            killed += u32::from(!ended);
            // On a busy machine, the durations of two runs differ.
            duration = if ended { moment } else { duration };
            hook.kill();
            let when = format!("killed after {moment:?} of {duration:?}");
            assert_no_processes(&root, &when);
            hook.finish();
            assert_end(&root, &finish, &want, &when);
        }
        assert!(killed >= points / 2, "only {killed} of {points} runs were interrupted");
    }

    /// Kills the program before each change that it makes to files, one run for each change.
    #[track_caller]
    fn kill_at_each_change(&self, look: impl Fn(&Root, &str), finish: impl Fn(&Root)) {
        let whole = self.before.fork();
        let changes = self.changes(&whole);
        assert!(changes.values().sum::<usize>() > 10, "only these changes: {changes:?}");
        let want = end(&whole, &finish);
        for (call, count) in changes {
            for number in 1..=count {
                let root = self.before.fork();
                let when = format!("killed at {call} number {number}");
                let inject = format!("inject={call}:signal=KILL:when={number}");
                let output = self.trace(&root, &format!("-e trace={call} -e {inject}"));
                assert_eq!(output.code, 128 + 9, "{when}: {}", output.text);
                assert_no_processes(&root, &when);
                look(&root, &when);
                assert_end(&root, &finish, &want, &when);
            }
        }
    }

    /// Returns the system calls that change files in an uninterrupted run, with their counts.
    fn changes(&self, root: &Root) -> BTreeMap<String, usize> {
        self.trace(root, "-e trace=copy_file_range,/^rename,/^symlink,/^link,/^unlink,rmdir").ok();
        let mut changes = BTreeMap::new();
        for line in root.read("srv/calls").lines() {
            if let Some((call, _)) = line.split_once('(').filter(|(call, _)| !call.contains(' ')) {
                *changes.entry(call.to_owned()).or_default() += 1;
            }
        }
        changes
    }

    /// Runs the program, but not its children, under strace.
    fn trace(&self, root: &Root, options: &str) -> stories::Completed {
        root.write("srv/target", &self.target);
        let program = format!("/usr/lib/alpm-dkms/{}", self.program);
        root.shell(&format!("exec strace -o /srv/calls {options} {program} </srv/target"))
    }
}

/// Calls `finish` and returns the paths in the dkms tree and in the kernel's directory. Logs, the
/// cache and the directory of pending work, which may be empty or missing, are left out.
#[track_caller]
fn end(root: &Root, finish: impl Fn(&Root)) -> [Snapshot; 2] {
    finish(root);
    root.assert_settled();
    let tree = root.snapshot("var/lib/dkms");
    let kernel = root.snapshot(&format!("usr/lib/modules/{}", release()));
    let ignored = [".log", ".cache", ".pending"];
    [
        tree.without(|path| ignored.iter().any(|top| path.starts_with(top))),
        kernel.without(|path| path.starts_with("build/")),
    ]
}

#[track_caller]
fn assert_end(root: &Root, finish: impl Fn(&Root), want: &[Snapshot; 2], when: &str) {
    for (is, want) in end(root, finish).iter().zip(want) {
        is.assert_matches(want, when);
    }
}

/// Returns the target that pacman passes for the source of `name/version`.
pub(crate) fn target(module: &str) -> String {
    format!("usr/src/{}/dkms.conf\n", module.replace('/', "-"))
}

/// Prepares a build of bbswitch.
fn prepared_build() -> Run {
    let before = machine(&[]);
    unpack(&before, || drop(before.install(&[find("bbswitch")])));
    Run { before, program: "dkms-install", target: target(find("bbswitch").module()) }
}

/// The hook is killed at 12 moments, mostly while it compiles.
#[test]
fn killed_build_is_finished_by_the_next_hook() {
    let run = prepared_build();
    run.kill_at_moments(12, |root| {
        root.hook("dkms-install", run.target.as_bytes()).ok();
        root.assert_works(&release(), "bbswitch");
    });
}

/// As above, but the boot unit finishes the build.
#[test]
fn killed_build_is_finished_at_boot() {
    prepared_build().kill_at_moments(12, |root| {
        root.boot_unit().ok();
        root.assert_works(&release(), "bbswitch");
    });
}

/// As above, with one run for each change of a file, before which the hook is killed.
#[test]
#[ignore = "takes long: run make check-power"]
fn build_killed_at_each_change_is_finished_at_boot() {
    let finish = |root: &Root| {
        root.boot_unit().ok();
        root.assert_works(&release(), "bbswitch");
    };
    prepared_build().kill_at_each_change(|_, _| {}, finish);
}

/// A module with two objects.
fn pair(root: &Root, version: &str) -> PackageFile {
    let code = |name: &str| {
        format!(
            "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_VERSION(\"{version}\");\n\
             MODULE_DESCRIPTION(\"{name}\");\n"
        )
    };
    Recipe::module("pair", version)
        .source("Makefile", "obj-m := left.o right.o\n")
        .source("left.c", &code("left"))
        .source("right.c", &code("right"))
        .conf_line("BUILT_MODULE_NAME=(left right)")
        .conf_line("DEST_MODULE_LOCATION=(/extra /extra)")
        .make(root)
}

/// A new version, already built, replaces the old one. Each object is always the old or the new
/// one.
#[test]
fn killed_upgrade_leaves_complete_objects() {
    let root = Root::ready();
    root.install(&[find("linux-1"), find("linux-headers-1"), pair(&root, "1.0")]).hooks_succeed();
    let new = pair(&root, "2.0");
    unpack(&root, || drop(root.install(std::slice::from_ref(&new))));
    root.dkms(&["build", "pair/2.0", "-k", &release()]).ok();
    let names = ["left", "right"];
    let old = names.map(|name| root.bytes(&object(&release(), name)));
    let built = format!("var/lib/dkms/pair/2.0/{}/x86_64/module", release());
    let new = names.map(|name| root.bytes(&format!("{built}/{name}.ko.zst")));
    assert_ne!(old, new);

    let run = Run { before: root, program: "dkms-install", target: target("pair/2.0") };
    let look = |root: &Root, when: &str| {
        for (index, name) in names.into_iter().enumerate() {
            let is = root.bytes(&object(&release(), name));
            assert!(is == old[index] || is == new[index], "{when}: {name} is neither old nor new");
            assert!(
                root.indexed(&release(), name).is_some(),
                "{when}: {name} is not in modules.dep"
            );
        }
    };
    run.kill_at_each_change(look, |root| {
        root.boot_unit().ok();
        assert_eq!(names.map(|name| root.bytes(&object(&release(), name))), new);
        assert_status(root, &[installed("pair/2.0", &release())]);
        assert_eq!(traces(root, "pair/1.0"), [""; 0]);
    });
}

/// The removal hook is killed before each change.
#[test]
fn killed_removal_is_finished_at_boot() {
    let root = machine(&[find("bbswitch"), find("acpi-call")]);
    unpack(&root, || drop(root.remove(&["bbswitch-dkms"])));
    let target = target(find("bbswitch").module());
    let run = Run { before: root, program: "dkms-remove", target };
    run.kill_at_each_change(
        |_, _| {},
        |root| {
            root.boot_unit().ok();
            assert_eq!(traces(root, "bbswitch"), [""; 0]);
            root.assert_absent(&release(), "bbswitch");
            root.assert_works(&release(), "acpi_call");
        },
    );
}

/// A build starts daemons that ignore signals and change their session.
#[test]
fn killed_hook_leaves_no_processes() {
    let root = machine(&[]);
    let slow = Recipe::module("slow", "1.0")
        .source(
            "Makefile",
            "obj-m := slow.o\nall:\n\t(trap '' TERM HUP INT; touch /srv/reached; sleep 300) & \
             setsid sh -c 'sleep 300 & sleep 300'\n",
        )
        .conf_line("MAKE[0]=\"make -j2 all; make all\"")
        .make(&root);
    unpack(&root, || drop(root.install(std::slice::from_ref(&slow))));
    let mut hook = root.start_hook("dkms-install", target("slow/1.0").as_bytes());
    let patience = Instant::now() + Duration::from_secs(60);
    while !root.exists("srv/reached") {
        assert!(Instant::now() < patience && !hook.has_ended(), "the build did not start");
        sleep(Duration::from_millis(20));
    }
    hook.kill();
    assert_no_processes(&root, "killed while compiling");
    hook.finish().exits(128 + 9);
}

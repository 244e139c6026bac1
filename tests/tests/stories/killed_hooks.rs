//! The hooks are killed at every moment: no process stays, and the next run finishes the job.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{PackageFile, Picture, Recipe, Root, find};

use crate::fixture::{assert_quiet, assert_status, installed, machine, object, release, traces};

/// Runs a transaction whose Post hooks do not run: what they find when they start.
fn unpack(root: &Root, transaction: impl Fn()) {
    let masks = ["70-dkms-install", "71-dkms-remove"]
        .map(|hook| format!("/etc/pacman.d/hooks/{hook}.hook"));
    for mask in &masks {
        root.shell(&format!("ln -s /dev/null {mask}")).ok();
    }
    transaction();
    root.shell(&format!("rm {}", masks.join(" "))).ok();
}

/// A run of one of our hook programs that is to be interrupted.
struct Run {
    /// The machine just before it.
    before: Root,
    program: &'static str,
    /// The one line that it gets.
    target: String,
}

impl Run {
    /// Kills it at `points` moments, spread over the time that it takes.
    #[track_caller]
    fn kill_in_time(&self, points: u32, finish: impl Fn(&Root)) {
        let whole = self.before.fork();
        let start = Instant::now();
        whole.hook(self.program, self.target.as_bytes()).ok();
        let duration = start.elapsed();
        let want = end(&whole, &finish);
        let mut killed = 0;
        for point in 0..points {
            let root = self.before.fork();
            let mut hook = root.start_hook(self.program, self.target.as_bytes());
            let moment = duration * point / points;
            sleep(moment);
            killed += u32::from(!hook.has_ended());
            hook.kill();
            let when = format!("killed after {moment:?} of {duration:?}");
            assert_quiet(&root, &when);
            hook.finish();
            assert_end(&root, &finish, &want, &when);
        }
        assert!(killed >= points / 2, "only {killed} of {points} runs were interrupted");
    }

    /// Kills it at every single change that it makes to files, before that change takes place.
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
                assert_quiet(&root, &when);
                look(&root, &when);
                assert_end(&root, &finish, &want, &when);
            }
        }
    }

    /// The system calls by which an uninterrupted run changes files, with how often it makes each.
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

    /// Runs it under strace, its children not.
    fn trace(&self, root: &Root, options: &str) -> stories::Completed {
        root.write("srv/target", &self.target);
        let program = format!("/usr/lib/alpm-dkms/{}", self.program);
        root.shell(&format!("exec strace -o /srv/calls {options} {program} </srv/target"))
    }
}

/// Finishes, and pictures all that is there then, but for logs, what is remembered for speed, and the directory of pending,
/// which is as good empty as gone.
#[track_caller]
fn end(root: &Root, finish: impl Fn(&Root)) -> [Picture; 2] {
    finish(root);
    root.assert_settled();
    let tree = root.picture("var/lib/dkms");
    let kernel = root.picture(&format!("usr/lib/modules/{}", release()));
    let passing = [".log", ".cache", ".pending"];
    [
        tree.without(|path| passing.iter().any(|top| path.starts_with(top))),
        kernel.without(|path| path.starts_with("build/")),
    ]
}

#[track_caller]
fn assert_end(root: &Root, finish: impl Fn(&Root), want: &[Picture; 2], when: &str) {
    for (is, want) in end(root, finish).iter().zip(want) {
        is.assert_is(want, when);
    }
}

/// The line that a Post hook gets for the source of `name/version`.
fn target(module: &str) -> String {
    format!("usr/src/{}/dkms.conf\n", module.replace('/', "-"))
}

/// Building bbswitch, which was unpacked.
fn a_build() -> Run {
    let before = machine(&[]);
    unpack(&before, || drop(before.install(&[find("bbswitch")])));
    Run { before, program: "dkms-install", target: target(find("bbswitch").module()) }
}

/// Story 16: a sweep over the whole run, which is mostly compiling.
#[test]
fn a_build_killed_at_any_time_is_finished_by_the_next_hook() {
    let run = a_build();
    run.kill_in_time(12, |root| {
        root.hook("dkms-install", run.target.as_bytes()).ok();
        root.assert_works(&release(), "bbswitch");
    });
}

/// Story 16: the same, finished by the unit that runs at boot.
#[test]
fn a_build_killed_at_any_time_is_finished_at_boot() {
    a_build().kill_in_time(12, |root| {
        root.boot_unit().ok();
        root.assert_works(&release(), "bbswitch");
    });
}

/// A module of two objects.
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

/// Story 16: a new version was built, and takes the old one's place.
#[test]
fn an_upgrade_killed_at_any_change_has_each_object_whole() {
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
            assert!(root.indexed(&release(), name).is_some(), "{when}: {name} cannot be found");
        }
    };
    run.kill_at_each_change(look, |root| {
        root.boot_unit().ok();
        assert_eq!(names.map(|name| root.bytes(&object(&release(), name))), new);
        assert_status(root, &[installed("pair/2.0", &release())]);
        assert_eq!(traces(root, "pair/1.0"), [""; 0]);
    });
}

/// Story 16: a module leaves.
#[test]
fn a_removal_killed_at_any_change_is_finished_at_boot() {
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

/// Story 16: compilers start programs that start programs.
#[test]
fn no_descendant_of_a_killed_hook_stays() {
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
        assert!(Instant::now() < patience && !hook.has_ended(), "the build does not start");
        sleep(Duration::from_millis(20));
    }
    hook.kill();
    assert_quiet(&root, "killed while compiling");
    hook.finish().exits(128 + 9);
}

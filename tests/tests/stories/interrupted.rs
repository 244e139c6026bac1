//! The hooks and pacman are killed at every moment; whatever comes next finishes the job.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{Package, Picture, Recipe, Root, find};

use crate::setting::{assert_status, installed, kernel, machine, object, release, traces};

/// The directory where a file masks the hook of the same name.
const MASKS: &str = "etc/pacman.d/hooks";

/// A transaction of which only the Pre hooks were run: what our Post hooks find when they start.
fn unpack(root: &Root, packages: &[Package]) {
    let masks = ["70-dkms-install", "71-dkms-remove"].map(|hook| format!("{MASKS}/{hook}.hook"));
    for mask in &masks {
        root.shell(&format!("ln -s /dev/null /{mask}")).ok();
    }
    root.install(packages).hooks_succeed();
    root.shell(&format!("cd / && rm {}", masks.join(" "))).ok();
}

/// All that a run leaves, but for logs and what it remembers for speed.
fn state(root: &Root) -> [Picture; 2] {
    let tree = root.picture("var/lib/dkms");
    let kernel = root.picture(&format!("usr/lib/modules/{}", release()));
    [
        tree.without(|path| path.starts_with(".log") || path.starts_with(".cache")),
        kernel.without(|path| path.starts_with("build/")),
    ]
}

/// Asserts that nothing runs in a root a moment after its programs were killed.
#[track_caller]
fn assert_quiet(root: &Root, when: &str) {
    let patience = Instant::now() + Duration::from_secs(3);
    while !root.processes().is_empty() && Instant::now() < patience {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(root.processes(), [], "{when}: processes are left");
}

/// Runs a hook in forks of `before` and kills it at `points` moments, spread over the time that it takes. After each,
/// `look` may look; then `finish` has to come to the state that an uninterrupted run comes to.
#[track_caller]
fn sweep(
    before: &Root,
    targets: &str,
    points: u32,
    look: impl Fn(&Root, &str),
    finish: impl Fn(&Root),
) {
    let whole = before.fork();
    let start = Instant::now();
    whole.hook("dkms-install", targets.as_bytes()).ok();
    let duration = start.elapsed();
    finish(&whole);
    let want = state(&whole);
    let mut killed = 0;
    for point in 0..points {
        let root = before.fork();
        let mut hook = root.start_hook("dkms-install", targets.as_bytes());
        let moment = duration * point / points;
        sleep(moment);
        killed += u32::from(!hook.has_ended());
        hook.kill();
        let when = format!("killed after {moment:?} of {duration:?}");
        assert_quiet(&root, &when);
        hook.finish();
        look(&root, &when);
        finish(&root);
        for (is, want) in state(&root).iter().zip(&want) {
            is.assert_is(want, &when);
        }
        root.assert_settled();
    }
    assert!(killed >= points / 2, "only {killed} of {points} runs were interrupted");
}

/// A machine where bbswitch was unpacked and nothing was built yet.
fn unpacked() -> (Root, String) {
    let root = machine(&[]);
    unpack(&root, &[find("bbswitch")]);
    (root, target("bbswitch"))
}

/// The line that a Post hook gets for a module of the testbed.
fn target(alias: &str) -> String {
    format!("usr/src/{}/dkms.conf\n", find(alias).module().replace('/', "-"))
}

/// Story 16: a sweep over the whole run, which is mostly compiling.
#[test]
fn a_hook_killed_anywhere_is_finished_by_the_next_hook() {
    let (before, targets) = unpacked();
    sweep(
        &before,
        &targets,
        13,
        |_, _| {},
        |root| {
            root.hook("dkms-install", targets.as_bytes()).ok();
            root.assert_works(&release(), "bbswitch");
        },
    );
}

/// Story 16: the same, finished by the unit that runs at boot.
#[test]
fn a_hook_killed_anywhere_is_finished_at_boot() {
    let (before, targets) = unpacked();
    sweep(
        &before,
        &targets,
        13,
        |_, _| {},
        |root| {
            root.boot_unit().ok();
            root.assert_works(&release(), "bbswitch");
        },
    );
}

/// Story 16: a finer sweep over the placing of a new version that is built already.
#[test]
fn an_object_is_the_old_or_the_new_one_at_every_moment() {
    let before = machine(&[find("bbswitch")]);
    let (old, new) = (find("bbswitch"), find("bbswitch-next"));
    let object = object(&release(), "bbswitch");
    let old_object = before.bytes(&object);
    unpack(&before, std::slice::from_ref(&new));
    before.dkms(&["build", new.module(), "-k", &release()]).ok();
    assert_eq!(before.bytes(&object), old_object);
    let built =
        format!("var/lib/dkms/{}/{}/x86_64/module/bbswitch.ko.zst", new.module(), release());
    let new_object = before.bytes(&built);
    let targets = target("bbswitch-next");
    let look = |root: &Root, when: &str| {
        let placed = root.bytes(&object);
        assert!(placed == old_object || placed == new_object, "{when}: a part of an object");
        assert!(
            root.indexed(&release(), "bbswitch").is_some(),
            "{when}: modprobe does not find it"
        );
    };
    sweep(&before, &targets, 25, look, |root| {
        root.boot_unit().ok();
        assert_eq!(root.bytes(&object), new_object);
        assert_status(root, &[installed(new.module(), &release())]);
        assert_eq!(traces(root, &format!("{}/", old.module())), [""; 0]);
    });
}

/// Story 16: compilers start programs that start programs.
#[test]
fn no_descendant_of_a_killed_hook_stays() {
    let root = machine(&[]);
    let slow = Recipe::module("slow", "1.0")
        .source(
            "Makefile",
            "obj-m := slow.o\nall:\n\t(trap '' TERM HUP INT; touch /srv/reached; sleep 300)\n\
             \tsetsid sh -c 'sleep 300 & sleep 300'\n",
        )
        .conf_line("MAKE[0]=\"make -j2 all; make all\"")
        .make(&root);
    unpack(&root, &[slow]);
    let mut hook = root.start_hook("dkms-install", b"usr/src/slow-1.0/dkms.conf\n");
    let patience = Instant::now() + Duration::from_secs(60);
    while !root.exists("srv/reached") {
        assert!(Instant::now() < patience && !hook.has_ended(), "the build does not start");
        sleep(Duration::from_millis(20));
    }
    hook.kill();
    assert_quiet(&root, "killed while compiling");
    hook.finish().exits(128 + 9);
}

/// Runs a transaction in which pacman is killed after it unpacked everything, before any Post hook of ours.
#[track_caller]
fn transaction_without_power(root: &Root, args: &[&str]) {
    let hook = format!("{MASKS}/00-power.hook");
    root.write(
        &hook,
        "[Trigger]\nType = Package\nOperation = Install\nOperation = Upgrade\nOperation = Remove\nTarget = *\n\
         [Action]\nWhen = PostTransaction\nExec = /bin/sh -c 'kill -KILL $PPID'\n",
    );
    root.pacman(args).exits(128 + 9);
    assert_quiet(root, "pacman was killed");
    root.shell(&format!("rm /{hook} /var/lib/pacman/db.lck")).ok();
}

/// Story 16.
#[test]
fn after_pacman_was_killed_new_modules_are_built() {
    let root = Root::ready();
    let files = [&kernel("linux", 1)[..], &[find("bbswitch")]].concat();
    let files: Vec<&str> = files.iter().map(|package| package.file.as_str()).collect();
    transaction_without_power(&root, &[&["-U"], &files[..]].concat());
    assert_eq!(root.placed(&release()), [""; 0]);
    let by_unit = root.fork();
    by_unit.boot_unit().ok();
    let by_hand = root.fork();
    by_hand.dkms(&["autoinstall", "-k", &release()]).ok();
    // Another module, another day.
    let by_hook = root.fork();
    by_hook.install(&[find("acpi-call")]).hooks_succeed();
    for root in [by_unit, by_hand, by_hook] {
        root.assert_works(&release(), "bbswitch");
        root.assert_settled();
    }
}

/// Story 16.
#[test]
fn after_pacman_was_killed_a_kernel_bump_is_finished() {
    let root = machine(&[find("bbswitch")]);
    let [kernel, headers] = kernel("linux", 2);
    transaction_without_power(&root, &["-U", &kernel.file, &headers.file]);
    root.boot_unit().ok();
    assert_eq!(root.kernels(), [kernel.release()]);
    root.assert_works(kernel.release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch").module(), kernel.release())]);
    root.assert_settled();
}

/// Story 16.
#[test]
fn after_pacman_was_killed_a_version_bump_is_finished() {
    let root = machine(&[find("bbswitch")]);
    let new = find("bbswitch-next");
    transaction_without_power(&root, &["-U", &new.file]);
    root.assert_works(&release(), "bbswitch");
    root.boot_unit().ok();
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(new.module(), &release())]);
    root.assert_settled();
}

/// Story 16.
#[test]
fn after_pacman_was_killed_a_removal_is_finished() {
    let root = machine(&[find("bbswitch"), find("acpi-call")]);
    transaction_without_power(&root, &["-R", "bbswitch-dkms"]);
    root.boot_unit().ok();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
    root.assert_works(&release(), "acpi_call");
    root.assert_settled();
}

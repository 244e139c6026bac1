//! A preflight is interrupted: nothing is left of it, and nothing has changed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{Completed, PackageFile, Recipe, Root, Started};

use crate::fixture::{assert_no_processes, kernel, release};
use crate::preflight_fixture::machine;

/// The file that contains the name of the moment at which the next preflight waits.
pub(crate) const PAUSE: &str = "srv/pause";

/// Returns the paths of the directories for scratch space.
pub(crate) fn scratch(root: &Root) -> Vec<String> {
    let names = root.names("var/lib/dkms").into_iter();
    names
        .filter(|it| it.starts_with(".alpm-dkms-trial-"))
        .map(|it| format!("var/lib/dkms/{it}"))
        .collect()
}

/// Asserts that scratch space was in memory: a killed hook left only an empty directory behind.
#[track_caller]
fn assert_only_empty_directory(root: &Root) {
    let [dir] = &scratch(root)[..] else { panic!("not one directory") };
    assert_eq!(root.names(dir), [""; 0]);
}

/// The moments at which a preflight waits, each with a process that runs only then.
const MOMENTS: [(&str, &str); 2] = [("script", "sleep 1001 "), ("make", "sleep 1002 ")];

/// The receiver of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// pacman and its process group, as with Ctrl-C.
    Group,
    Pacman,
    Supervisor,
    Worker,
}

/// A module that waits in its PRE_BUILD script or in make, if the file `PAUSE` says so.
fn slow(root: &Root, version: &str) -> PackageFile {
    let wait = |moment: &str, seconds: u16| {
        format!("[ \"$$(cat /{PAUSE})\" != {moment} ] || sleep {seconds}")
    };
    Recipe::module("slow", version)
        .source("wait.sh", &format!("#!/bin/sh\n{}\n", wait("script", 1001).replace("$$", "$")))
        .conf_line("PRE_BUILD=wait.sh")
        .edit("Makefile", |makefile| format!("{makefile}$(shell {})\n", wait("make", 1002)))
        .make(root)
}

/// Creates a machine with `slow` 1.0, and the package of `slow` 2.0.
pub(crate) fn waiting_machine() -> (Root, [PackageFile; 1]) {
    let root = machine(&[]);
    root.write(PAUSE, "");
    root.install(&[slow(&root, "1.0")]).hooks_succeed();
    root.assert_works(&release(), "slow");
    let next = [slow(&root, "2.0")];
    (root, next)
}

/// Returns the command line of a transaction that installs packages.
pub(crate) fn transaction(packages: &[PackageFile]) -> Vec<&str> {
    let files = packages.iter().map(|package| package.file.as_str());
    ["pacman", "--noconfirm", "--noprogressbar", "-U"].into_iter().chain(files).collect()
}

/// Starts a command in a process group of its own, and waits until a process appears whose command
/// line contains `sign`.
#[track_caller]
pub(crate) fn start_until(root: &Root, command: &[&str], sign: &str) -> Started {
    let mut started = root.start("setsid", command);
    let patience = Instant::now() + Duration::from_secs(60);
    while !root.processes().iter().any(|(_, line)| line.contains(sign)) {
        if started.has_ended() || Instant::now() > patience {
            panic!("no process `{sign}`: {}", started.finish().text);
        }
        sleep(Duration::from_millis(2));
    }
    started
}

#[track_caller]
fn send(root: &Root, signal: &str, victim: Victim, pacman: &Started) {
    let of_hook = |is_worker: bool| {
        let processes = root.processes().into_iter();
        let mut hooks = processes.filter(|(_, line)| {
            line.contains("dkms-preflight") && line.contains("--worker") == is_worker
        });
        let (id, _) = hooks.find(|(_, line)| !line.contains("--trial")).expect("a hook");
        id.to_string()
    };
    let id = match victim {
        Victim::Group => format!("-{}", pacman.id()),
        Victim::Pacman => pacman.id().to_string(),
        Victim::Supervisor => of_hook(false),
        Victim::Worker => of_hook(true),
    };
    root.shell(&format!("kill -s {signal} -- {id}")).ok();
}

/// Sends a signal while a preflight tries these packages. Asserts that all of its processes end at
/// once and that no mount is left. Returns pacman's output.
#[track_caller]
fn interrupt(
    root: &Root,
    packages: &[PackageFile],
    sign: &str,
    (signal, victim): (&str, Victim),
) -> Completed {
    let mounts = root.mounts();
    let pacman = start_until(root, &transaction(packages), sign);
    send(root, signal, victim, &pacman);
    let patience = Instant::now() + Duration::from_secs(2);
    while root.processes().iter().any(|(_, line)| line.contains(sign) || line.contains("--worker"))
    {
        assert!(Instant::now() < patience, "{:?}", root.processes());
        sleep(Duration::from_millis(10));
    }
    // The builds after the transaction, if it goes on, do not wait.
    root.write(PAUSE, "");
    let pacman = pacman.finish();
    assert_no_processes(root, "interrupted");
    assert_eq!(root.mounts(), mounts);
    pacman
}

/// Interrupts the upgrade of `slow` at each moment, and calls `check` with pacman's output and the
/// version of `slow` that works then.
#[track_caller]
fn at_each_moment(
    (before, packages): &(Root, [PackageFile; 1]),
    how: (&str, Victim),
    check: impl Fn(&Root, &Completed, &str),
) {
    for (moment, sign) in MOMENTS {
        let root = before.fork();
        root.write(PAUSE, moment);
        let ended = interrupt(&root, packages, sign, how);
        let version = root.modinfo(&release(), "slow", "version");
        check(&root, &ended, &version);
        assert_eq!(root.changes_elsewhere(), [""; 0]);
        if version == "1.0" {
            assert_unchanged(&root, before);
            repeat(&root, packages);
        }
        root.assert_works(&release(), "slow");
        assert_eq!(root.modinfo(&release(), "slow", "version"), "2.0");
        root.assert_settled();
    }
}

/// Asserts that no file in our trees has changed but logs, the cache and the scratch directory.
#[track_caller]
fn assert_unchanged(root: &Root, before: &Root) {
    let skipped = [".cache", ".log", ".lock", ".alpm-dkms-trial-"];
    for tree in ["var/lib/dkms", "usr/lib/modules", "usr/src"] {
        let [is, was] = [root, before].map(|root| {
            root.snapshot(tree).without(|path| skipped.iter().any(|top| path.starts_with(top)))
        });
        is.assert_matches(&was, tree);
    }
}

/// Repeats the transaction.
#[track_caller]
fn repeat(root: &Root, packages: &[PackageFile]) {
    // pacman leaves its lock behind when it is killed.
    root.shell("rm -f /var/lib/pacman/db.lck").ok();
    root.install(packages).hooks_succeed().has("1 module built for ");
    assert_eq!(scratch(root), [""; 0]);
}

/// pacman ends at once, and has changed nothing.
#[test]
fn preflight_ends_with_pacman() {
    let machine = waiting_machine();
    for (signal, victim, number) in [
        ("INT", Victim::Group, 2),
        ("INT", Victim::Pacman, 2),
        ("TERM", Victim::Pacman, 15),
        ("KILL", Victim::Pacman, 9),
    ] {
        at_each_moment(&machine, (signal, victim), |root, ended, version| {
            assert_eq!(ended.code, 128 + number, "{}", ended.text);
            assert_eq!(version, "1.0");
            assert_eq!(scratch(root), [""; 0]);
        });
    }
}

#[test]
fn killed_preflight_does_not_abort_the_transaction() {
    let machine = waiting_machine();
    for how in [("KILL", Victim::Worker), ("TERM", Victim::Supervisor)] {
        at_each_moment(&machine, how, |root, ended, version| {
            let note = "note: modules not test-built before the transaction: ";
            assert_eq!(ended.text.matches(note).count(), 1, "{}", ended.text);
            assert_eq!((ended.code, version), (0, "2.0"), "{}", ended.text);
            assert_eq!(scratch(root), [""; 0]);
        });
    }
}

/// pacman aborts the transaction if a hook is killed by a signal. The scratch directory is then
/// left behind, but empty, since what it contained was in memory.
#[test]
fn killed_hook_leaves_only_an_empty_directory() {
    at_each_moment(&waiting_machine(), ("KILL", Victim::Supervisor), |root, ended, version| {
        assert_eq!((ended.code, version), (1, "1.0"), "{}", ended.text);
        assert_only_empty_directory(root);
        assert_eq!(root.pending(), [""; 0]);
    });
}

/// Without enough memory, the scratch space is on the disk.
#[test]
fn next_preflight_removes_the_scratch_space_of_a_killed_one() {
    let root = machine(&[]);
    root.shell("mount -t tmpfs -o size=16g none /var/lib/dkms").ok();
    root.write(PAUSE, "");
    root.install(&[slow(&root, "1.0")]).hooks_succeed();
    root.write("srv/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 400000 kB\n");
    root.shell("mount --bind /srv/meminfo /proc/meminfo").ok();
    let next = [slow(&root, "2.0")];
    root.write(PAUSE, "make");
    interrupt(&root, &next, "sleep 1002 ", ("KILL", Victim::Supervisor)).exits(1);
    let [dir] = &scratch(&root)[..] else { panic!("not one directory") };
    assert!(root.exists(&format!("{dir}/root/usr/src/slow-2.0/dkms.conf")));
    repeat(&root, &next);
    root.assert_works(&release(), "slow");
    root.assert_settled();
}

/// A kernel's headers are being unpacked.
#[test]
fn unpacking_can_be_interrupted() {
    let (before, _) = waiting_machine();
    let packages = kernel("linux", 2);
    for (signal, victim, code) in [
        ("INT", Victim::Group, 130),
        ("KILL", Victim::Pacman, 137),
        ("KILL", Victim::Supervisor, 1),
    ] {
        let root = before.fork();
        let sign = format!("bsdtar -xpf {}", packages[1].file);
        interrupt(&root, &packages, &sign, (signal, victim)).exits(code);
        match victim {
            Victim::Supervisor => assert_only_empty_directory(&root),
            _ => assert_eq!(scratch(&root), [""; 0]),
        }
        assert_unchanged(&root, &before);
        root.assert_works(&release(), "slow");
        repeat(&root, &packages);
        root.assert_works(packages[0].release(), "slow");
        assert_eq!(root.kernels(), [packages[0].release()]);
        root.assert_settled();
    }
}

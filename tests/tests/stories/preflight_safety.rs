//! A preflight cannot do its work, or a module tries to change the machine: the transaction goes
//! on, and nothing changes before it.

use std::collections::BTreeSet;

use rstest::rstest;
use stories::{Completed, Recipe, Root, find};

use crate::fixture::{kernel, release};
use crate::preflight_fixture::{critical, machine, next_release};
use crate::preflight_interruptions::{PAUSE, start_until, transaction, waiting_machine};

/// The beginning of the line that says why nothing was tried.
const NOT_TRIED: &str = "note: modules not test-built before the transaction: ";

/// Asserts that a transaction was completed without a preflight. One line tells `why`.
#[track_caller]
fn assert_not_tried(transaction: Completed, why: &str) -> Completed {
    assert_eq!(transaction.text.matches("not test-built").count(), 1, "{}", transaction.text);
    transaction.ok().hooks_succeed().has(&format!("{NOT_TRIED}{why}"))
}

/// Adds a hook that runs a command of a shell after a preflight and, if that fails, aborts the
/// transaction.
fn hook_after_preflight(root: &Root, command: &str) {
    hook(root, "04-zz-after", command);
}

/// Adds a hook that runs a command of a shell before the transaction and, if that fails, aborts it.
fn hook(root: &Root, name: &str, command: &str) {
    root.write(
        &format!("etc/pacman.d/hooks/{name}.hook"),
        &format!(
            "[Trigger]\nType = Package\nOperation = Install\nOperation = Upgrade\nTarget = *\n\
             [Action]\nWhen = PreTransaction\nExec = /bin/sh -c '{command}'\nAbortOnFail\n"
        ),
    );
}

#[test]
fn damaged_alpm_query_does_not_abort_the_transaction() {
    let (before, next) = waiting_machine();
    let query = "/usr/lib/alpm-dkms/alpm-query";
    for (damage, why) in [
        ("rm $q", "cannot run alpm-query"),
        ("printf '#!/bin/sh\\necho nonsense\\n' >$q", "alpm-query: "),
        ("printf '#!/bin/sh\\nkill -KILL $$\\n' >$q", "alpm-query: "),
    ] {
        let root = before.fork();
        root.shell(&format!("q={query}; {damage}")).ok();
        assert_not_tried(root.install(&next), why);
        root.assert_works(&release(), "slow");
        root.assert_settled();
    }
}

/// Kills the trial as the OOM killer would, which kills the processes with the highest score first.
#[test]
fn killed_trial_does_not_abort_the_transaction() {
    let (root, next) = waiting_machine();
    root.write(PAUSE, "make");
    let words = [&["choom", "-n", "100", "--"], &transaction(&next)[..]].concat();
    let pacman = start_until(&root, &words, "sleep 1002 ");
    let score = |id: u32| root.read(&format!("proc/{id}/oom_score_adj")).trim().to_owned();
    assert_eq!(score(pacman.id()), "100");
    let processes = root.processes();
    for sign in ["--worker", "--trial", "make ", "sleep 1002 "] {
        let (id, _) = processes.iter().find(|(_, line)| line.contains(sign)).expect(sign);
        assert_eq!(score(*id), "600", "{sign}");
    }
    root.write(PAUSE, "");
    let (trial, _) = processes.iter().find(|(_, line)| line.contains("--trial")).expect("a trial");
    root.shell(&format!("kill -KILL {trial}")).ok();
    assert_not_tried(pacman.finish(), "the trial failed: killed by signal 9\n");
    root.assert_works(&release(), "slow");
    root.assert_settled();
}

#[test]
fn slow_preflight_times_out() {
    let (root, next) = waiting_machine();
    root.write("etc/dkms/alpm-dkms.toml", "[preflight]\ntimeout = 1\n");
    root.write(PAUSE, "script");
    hook_after_preflight(&root, &format!("rm /{PAUSE}"));
    assert_not_tried(root.install(&next), "timed out ([preflight] timeout");
    root.assert_works(&release(), "slow");
    root.assert_settled();
}

/// The hook after the transaction waits for the other run, the preflight only for 30 seconds.
#[test]
fn preflight_does_not_wait_long_for_another_run() {
    let (root, next) = waiting_machine();
    let mut other = root.start("flock", &["--no-fork", "/var/lib/dkms/.lock", "sleep", "1000"]);
    hook_after_preflight(&root, &format!("kill -KILL {}", other.id()));
    assert_not_tried(root.install(&next), "timed out waiting for another run of alpm-dkms");
    assert!(other.has_ended());
    root.assert_works(&release(), "slow");
}

/// Many containers do not grant this right.
#[test]
fn preflight_without_the_right_to_mount_is_skipped() {
    let (root, next) = waiting_machine();
    let without = ["setpriv", "--inh-caps", "-sys_admin", "--bounding-set", "-sys_admin"];
    let words = [&without, &transaction(&next)[..]].concat();
    let pacman = root.run(words[0], &words[1..]);
    assert_not_tried(pacman, "cannot start the worker: Operation not permitted");
    root.assert_works(&release(), "slow");
    root.assert_settled();
}

#[rstest]
#[case::sources("usr/src")]
#[case::kernels("usr/lib/modules")]
fn preflight_without_one_of_the_trees_is_skipped(#[case] tree: &str) {
    let root = Root::with_preflight();
    root.shell(&format!("rmdir /{tree}")).ok();
    let first = root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat());
    let first = assert_not_tried(first, &format!("there is no directory /{tree} yet"));
    first.hooks_succeed();
    root.assert_works(&release(), "bbswitch");
}

/// Copies our programs and hooks, which may be newer than those of the testbed, into a nested root.
fn with_our_programs(root: &Root, nested_root: &str) {
    root.shell(&format!(
        "for dir in /usr/lib/alpm-dkms /usr/share/libalpm/hooks; do cp $dir/* {nested_root}$dir; done"
    ))
    .ok();
}

/// A root that is not a mount point: pacman runs inside it, as with arch-chroot, or outside.
#[test]
fn preflight_in_another_root_is_skipped() {
    // pacman reads the overrides of hooks outside of the root.
    let root = Root::with_preflight();
    let nested = root.nested_root();
    with_our_programs(&root, &nested);
    let [kernel, headers] = kernel("linux", 1);
    let [module, next] = ["1.0", "2.0"].map(|version| Recipe::module("a", version).make(&root));
    let pacman = ["pacman", "--noconfirm", "-r", nested.as_str(), "-U"];
    let outside = [&pacman[..], &[&kernel.file, &headers.file, &module.file]].concat();
    let outside = root.run(outside[0], &outside[1..]);
    assert_not_tried(outside, "pacman is using another root directory (--root)");

    // Without a mount point, pacman cannot measure the free space.
    root.shell(&format!(
        "sed -i /CheckSpace/d {nested}/etc/pacman.conf && cp {} {nested}/next.pkg.tar.zst",
        next.file
    ))
    .ok();
    let inside = [nested.as_str(), "pacman", "--noconfirm", "-U", "/next.pkg.tar.zst"];
    assert_not_tried(root.run("chroot", &inside), "cannot mount directories: Invalid argument");
    let object = format!("{nested}/usr/lib/modules/{}/updates/dkms/a.ko.zst", release());
    assert!(root.exists(&object));
}

#[test]
fn hanging_conf_affects_only_its_own_module() {
    let root = machine(&[]);
    let modules = |version: &str| {
        ["hanging", "other"].map(|name| {
            let wait = format!("[ ! -s /{PAUSE} ] || sleep 1000");
            let recipe = Recipe::module(name, version);
            if name == "hanging" { recipe.conf_line(&wait) } else { recipe }.make(&root)
        })
    };
    root.install(&modules("1.0")).hooks_succeed();
    root.write(
        "etc/dkms/alpm-dkms.toml",
        "[conf]\ntimeout = 1\n[preflight]\ncritical = [\"hanging\"]\n",
    );
    root.write(PAUSE, "conf");
    hook_after_preflight(&root, &format!("rm /{PAUSE}"));
    let next = modules("2.0");
    root.install(&next).hooks_succeed().has("1 module built for ");
    for module in ["hanging", "other"] {
        assert_eq!(root.modinfo(&release(), module, "version"), "2.0");
    }
    root.assert_settled();
}

/// Directories in which a module creates files.
const PLACES: [&str; 13] = [
    "/",
    "/boot",
    "/etc",
    "/home",
    "/opt",
    "/root",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/lib/modules",
    "/usr/src",
    "/var/lib",
    "/var/tmp",
];

/// Returns all entries of a root's file system, with the attributes that change with them (type,
/// mode, owner, size, time and link target). Leaves out the files that pacman and a preflight
/// write.
fn entries(root: &Root) -> BTreeSet<String> {
    let find = "find / -xdev -printf '%p %y %m %U %G %s %T@ %l\n'";
    let changing =
        ["/srv/", "/var/lib/dkms/.cache/", "/var/lib/dkms/.lock ", "/var/lib/pacman/", "/var/log/"];
    // The times of directories in which a file was created and removed change.
    let own = [
        "/srv ",
        "/var/lib/dkms ",
        "/var/lib/dkms/.cache ",
        "/var/lib/pacman ",
        "/var/lib/dkms/.log ",
    ];
    let lines = root.shell(find).ok();
    let kept = lines
        .lines()
        .into_iter()
        .filter(|line| !changing.iter().chain(&own).any(|start| line.starts_with(start)));
    kept.map(str::to_owned).collect()
}

/// A module's writes stay in the scratch space or fail.
#[test]
fn module_that_writes_elsewhere_changes_nothing() {
    let root = machine(&[]);
    let scribble = format!(
        "for dir in {}; do echo 1 >$$dir/scribbled; done; rm -rf /usr/src/other-1.0; \
         echo >>/usr/lib/modules/{}/modules.order ",
        PLACES.join(" "),
        release()
    );
    let scribbler = Recipe::module("scribbler", "1.0")
        .edit("Makefile", |text| format!("{text}$(shell {{ {scribble}; }} 2>/dev/null)\n"))
        .make(&root);
    let other = Recipe::module("other", "1.0").make(&root);
    root.install(&[other]).hooks_succeed();
    hook_after_preflight(&root, "test -e /srv/go-on");
    let before = entries(&root);
    let aborted = root.pacman(&["-U", &scribbler.file]).exits(1).has("1 module built for ");
    let after = entries(&root);
    let changes: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changes.is_empty(), "{changes:#?}\n{}", aborted.text);
    root.assert_settled();

    // The same build does write there if it can.
    root.shell("touch /srv/go-on; rm -rf /var/lib/dkms/.cache/objects").ok();
    root.write("etc/dkms/alpm-dkms.toml", "[preflight]\nmode = \"off\"\n");
    root.install(&[scribbler]).hooks_succeed();
    // Each build has its own directories for temporary files.
    for place in PLACES.into_iter().filter(|place| !place.ends_with("tmp")) {
        assert!(root.exists(&format!("{place}/scribbled")), "{place}");
    }
}

/// A failure because of a read-only directory says nothing about the module.
#[test]
fn module_that_needs_to_write_elsewhere_is_not_tried() {
    let root = machine(&[]);
    let generated = |name: &str, command: &str| {
        Recipe::module(name, "1.0")
            .edit("Makefile", |text| format!("{text}$(shell {command})\n"))
            .edit(&format!("{name}.c"), |code| format!("#include \"/opt/{name}.h\"\n{code}"))
            .make(&root)
    };
    let modules = [
        Recipe::module("script", "1.0")
            .source("pre.sh", "#!/bin/sh\ntouch /opt/script\n")
            .conf_line("PRE_BUILD=pre.sh")
            .make(&root),
        generated("header", "rm -f /opt/header.h; echo >/opt/header.h"),
        // Behaves like a script that ignores the failure.
        generated("quiet", "rm -f /opt/quiet.h; touch /opt/quiet.h 2>/dev/null || true"),
    ];
    root.install(&modules).hooks_succeed();
    root.shell("rm -rf /opt/*").ok();
    critical(&root, &["script", "header", "quiet"]);
    let upgrade = root.install(&kernel("linux", 2)).hooks_succeed();
    let writes = "the build writes to a directory that is read-only before the transaction";
    let upgrade = upgrade.has(&format!("note: script/1.0: test build inconclusive: {writes}"));
    let upgrade = upgrade.has(&format!("note: header/1.0: test build inconclusive: {writes}"));
    let needs = "the build needs /opt/quiet.h, which the transaction may install";
    upgrade.has(&format!("note: quiet/1.0: test build inconclusive: {needs}"));
    for module in ["script", "header", "quiet"] {
        root.assert_works(&next_release(), module);
    }
}

/// Another program removes a package file after pacman has read it, and puts it back in time.
#[test]
fn vanished_package_file_is_not_tried() {
    let (root, next) = waiting_machine();
    let file = &next[0].file;
    hook(&root, "03-away", &format!("mv {file} /srv/away"));
    hook_after_preflight(&root, &format!("mv /srv/away {file}"));
    assert_not_tried(
        root.install(&next),
        "cannot find the package file that contains usr/src/slow-2.0/",
    );
    root.assert_works(&release(), "slow");
    root.assert_settled();
}

/// The build needs more memory than there is, but not after the transaction.
#[test]
fn full_scratch_space_aborts_nothing() {
    let (root, _) = waiting_machine();
    let large = Recipe::module("large", "2.0")
        .edit("Makefile", |text| {
            format!("{text}$(shell dd if=/dev/zero of=/var/lib/dkms/large/2.0/build/x bs=1M count=400)\n")
        })
        .make(&root);
    root.install(&[Recipe::module("large", "1.0").make(&root)]).hooks_succeed();
    critical(&root, &["large"]);
    root.write("srv/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 600000 kB\n");
    root.shell("mount --bind /srv/meminfo /proc/meminfo").ok();
    let upgrade = root.install(&[large]).hooks_succeed();
    upgrade
        .has("note: large/2.0: test build inconclusive: ")
        .has("not enough space in /var/lib/dkms");
    assert_eq!(root.modinfo(&release(), "large", "version"), "2.0");
}

/// A file of 3 GiB that takes no space in its package.
#[test]
fn package_with_a_huge_file_is_not_tried() {
    let (root, _) = waiting_machine();
    let small = Recipe::module("huge", "1.0").make(&root);
    root.shell(&format!(
        "mkdir /srv/huge && cd /srv/huge && bsdtar -xf {} && truncate -s 3G usr/src/huge-1.0/zeros && \
         bsdtar -cf - .PKGINFO usr | zstd -q >/srv/huge.pkg.tar.zst",
        small.file
    ))
    .ok();
    hook_after_preflight(&root, "false");
    let aborted = root.pacman(&["-U", "/srv/huge.pkg.tar.zst"]).exits(1);
    aborted.has(&format!("{NOT_TRIED}/srv/huge.pkg.tar.zst: cannot unpack: "));
    root.assert_settled();
}

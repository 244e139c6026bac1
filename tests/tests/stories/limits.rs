//! Builds are stopped by a time limit, by lack of memory, and by signals.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{PackageFile, Recipe, Root, Started, find};

use crate::fixture::{
    assert_no_processes, assert_status, installed, machine, object, release, traces,
};

/// A module whose build starts daemons and waits until `/srv/go` exists.
fn slow(root: &Root, name: &str) -> PackageFile {
    let script = format!(
        "#!/bin/bash\n[ -e /srv/go ] && exit\nsetsid -f sleep 300\n(trap '' TERM INT HUP; sleep 300) &\n\
         touch /srv/reached-{name}\nuntil [ -e /srv/go ]; do sleep 0.1; done\n"
    );
    Recipe::module(name, "1.0")
        .source("wait.sh", &script)
        .conf_line("MAKE[0]=\"./wait.sh && make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build\"")
        .make(root)
}

/// Waits until builds have created these files.
#[track_caller]
fn wait_for(root: &Root, run: &mut Started, files: &[&str]) {
    let patience = Instant::now() + Duration::from_secs(120);
    while let Some(missing) = files.iter().find(|file| !root.exists(file)) {
        assert!(Instant::now() < patience && !run.has_ended(), "{missing} was not created");
        sleep(Duration::from_millis(20));
    }
}

/// Asserts that an interrupted run left no staged object, build directory or log of the module and
/// did not record a failure.
#[track_caller]
fn assert_nothing_half_done(root: &Root, module: &str) {
    let left: Vec<String> = traces(root, module)
        .into_iter()
        .filter(|path| !path.starts_with(".pending/") && !path.starts_with(".kept/"))
        .collect();
    let name = format!("{module}/1.0");
    let whole = [module.to_owned(), name.clone(), format!("{name}/source")];
    let half: Vec<_> = left.iter().filter(|path| !whole.contains(path)).collect();
    assert_eq!(half, [""; 0], "unfinished files");
    root.dkms(&["status", "--json"]).ok().lacks("failed");
}

/// Ctrl-C in a terminal signals pacman and the hook, but not the builds.
#[test]
fn ctrl_c_stops_builds_and_the_next_boot_finishes_them() {
    let root = machine(&[]);
    root.write("etc/dkms/alpm-dkms.toml", "[build]\njobs = 4\n");
    root.write("usr/bin/mkinitcpio", "#!/bin/sh\n"); // generates no image
    let packages =
        [slow(&root, "sleepy"), find("v4l2loopback"), find("bbswitch"), slow(&root, "drowsy")];
    let files: Vec<&str> = packages.iter().map(|package| package.file.as_str()).collect();
    // In a separate process group, as started by a shell.
    let args = [&["pacman", "--noconfirm", "--noprogressbar", "-U"], &files[..]].concat();
    let mut pacman = root.start("setsid", &args);
    wait_for(&root, &mut pacman, &["srv/reached-sleepy", "srv/reached-drowsy"]);
    root.run("kill", &["-INT", "--", &format!("-{}", pacman.id())]).ok();
    let output = pacman.finish().has("interrupted by SIGINT").has("modules not finished");
    output
        .has("run: dkms autoinstall --pending")
        .has("0 modules installed; missing: bbswitch")
        .lacks("FAILED");
    assert_no_processes(&root, "interrupted");
    for module in ["sleepy", "drowsy"] {
        assert_nothing_half_done(&root, module);
    }
    assert!(!root.pending().is_empty(), "no work is pending");

    root.write("srv/go", "");
    root.boot_unit().ok();
    for module in ["sleepy", "drowsy", "v4l2loopback", "bbswitch"] {
        root.assert_works(&release(), module);
    }
    root.assert_settled();
}

/// A `dkms` command is interrupted by each signal while real compilers run.
#[test]
fn interrupted_command_keeps_the_old_objects() {
    let (package, kernel) = (find("v4l2loopback"), release());
    let root = machine(std::slice::from_ref(&package));
    let build = ["build", package.module(), "-k", &kernel, "--force"];
    let before = root.snapshot(&format!("usr/lib/modules/{}", release()));
    let ignored = [".log", ".cache", ".pending"];
    let snapshot = |root: &Root| {
        root.snapshot("var/lib/dkms")
            .without(|path| ignored.iter().any(|top| path.starts_with(top)))
    };
    let (tree, status) = (snapshot(&root), root.status());
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let root = root.fork();
        let mut dkms = root.start("/usr/bin/dkms", &build);
        let compiles = |(_, line): &(u32, String)| line.contains("cc1");
        let patience = Instant::now() + Duration::from_secs(120);
        while !root.processes().iter().any(compiles) {
            assert!(Instant::now() < patience && !dkms.has_ended(), "no compiler was started");
            sleep(Duration::from_millis(5));
        }
        root.run("kill", &[&format!("-{signal}"), &dkms.id().to_string()]).ok();
        dkms.finish().exits(code).has("interrupted by SIG").has("module not finished");
        assert_no_processes(&root, "interrupted");
        root.snapshot(&format!("usr/lib/modules/{}", release()))
            .assert_matches(&before, "the objects");
        snapshot(&root).assert_matches(&tree, "the dkms tree");
        assert_eq!(root.status(), status);
        root.dkms(&["autoinstall", "--pending"]).ok();
        root.assert_works(&release(), "v4l2loopback");
        root.assert_settled();
    }
}

/// As with a Makefile that hangs while it downloads a file.
#[test]
fn hanging_build_times_out_and_others_finish() {
    let root = machine(&[find("bbswitch")]);
    root.shell(&format!("zstd -q -d /{} -o /srv/built.ko", object(&release(), "bbswitch"))).ok();
    root.write("etc/dkms/alpm-dkms.toml", "[build]\ntimeout = 20\n");
    // This module is built quickly even on a busy machine.
    let quick = Recipe::module("quick", "1.0").conf_line("MAKE[0]=\"cp /srv/built.ko quick.ko\"");
    let output = root.install(&[slow(&root, "sleepy"), quick.make(&root)]).hooks_fail();
    output.has("make timed out after 20 s ([build] timeout in /etc/dkms/alpm-dkms.toml)");
    assert_no_processes(&root, "timed out");
    assert!(root.exists(&object(&release(), "quick")));
    let of = |module: &str| installed(module, &release());
    let status = ["sleepy/1.0: added".into(), of("quick/1.0"), of(find("bbswitch").module())];
    assert_status(&root, &status);
}

/// The first build runs with a limited address space.
#[test]
fn out_of_memory_build_is_retried_alone() {
    let root = machine(&[]);
    let script = "#!/bin/bash\nif [ ! -e /srv/tried ]; then touch /srv/tried; ulimit -v 100000; fi\n\
                  exec make -C \"$1\" M=\"$PWD\"\n";
    let hungry = Recipe::module("hungry", "1.0")
        .source("hungry.sh", script)
        .conf_line("MAKE[0]=\"./hungry.sh $kernel_source_dir\"")
        .make(&root);
    let output = root.install(&[hungry, find("bbswitch")]).hooks_succeed();
    output.has("out of memory").has("will be retried alone");
    for module in ["hungry", "bbswitch"] {
        root.assert_works(&release(), module);
    }
    root.assert_settled();
}

//! Builds end at their time limit, at their memory limit, and when they are interrupted.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{PackageFile, Recipe, Root, Started, find};

use crate::fixture::{assert_quiet, assert_status, installed, machine, object, release, traces};

/// A module that is built when `/srv/go` is there, and until then leaves daemons about.
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

/// Waits until builds have made these files.
#[track_caller]
fn wait_for(root: &Root, run: &mut Started, files: &[&str]) {
    let patience = Instant::now() + Duration::from_secs(120);
    while let Some(missing) = files.iter().find(|file| !root.exists(file)) {
        assert!(Instant::now() < patience && !run.has_ended(), "there is no {missing}");
        sleep(Duration::from_millis(20));
    }
}

/// Asserts that a run which was asked to end left nothing half done: no staged object, no build directory, no log, no
/// memory of a failure.
#[track_caller]
fn assert_nothing_half_done(root: &Root, module: &str) {
    let left: Vec<String> = traces(root, module)
        .into_iter()
        .filter(|path| !path.starts_with(".pending/") && !path.starts_with(".kept/"))
        .collect();
    let name = format!("{module}/1.0");
    let whole = [module.to_owned(), name.clone(), format!("{name}/source")];
    let half: Vec<_> = left.iter().filter(|path| !whole.contains(path)).collect();
    assert_eq!(half, [""; 0], "half done");
    root.dkms(&["status", "--json"]).ok().lacks("failed");
}

/// Story 16: Ctrl-C in a terminal reaches pacman and the hook, but not the builds.
#[test]
fn ctrl_c_during_a_transaction_ends_the_builds_and_the_next_boot_goes_on() {
    let root = machine(&[]);
    root.write("etc/dkms/alpm-dkms.toml", "[build]\njobs = 4\n");
    let packages =
        [slow(&root, "sleepy"), find("v4l2loopback"), find("bbswitch"), slow(&root, "drowsy")];
    let files: Vec<&str> = packages.iter().map(|package| package.file.as_str()).collect();
    // In a process group of its own, as a shell starts it.
    let args = [&["pacman", "--noconfirm", "--noprogressbar", "-U"], &files[..]].concat();
    let mut pacman = root.start("setsid", &args);
    wait_for(&root, &mut pacman, &["srv/reached-sleepy", "srv/reached-drowsy"]);
    root.run("kill", &["-INT", "--", &format!("-{}", pacman.id())]).ok();
    let said = pacman.finish().has("interrupted by SIGINT").has("modules are not ready");
    said.has("run: dkms autoinstall --pending").lacks("FAILED");
    assert_quiet(&root, "asked to end");
    for module in ["sleepy", "drowsy"] {
        assert_nothing_half_done(&root, module);
    }
    assert!(!root.pending().is_empty(), "the rest is pending");

    root.write("srv/go", "");
    root.boot_unit().ok();
    for module in ["sleepy", "drowsy", "v4l2loopback", "bbswitch"] {
        root.assert_works(&release(), module);
    }
    root.assert_settled();
}

/// Story 16: the same for a command, in the middle of real compilers; what worked before still does.
#[test]
fn a_command_that_is_asked_to_end_leaves_the_old_objects() {
    let (package, kernel) = (find("v4l2loopback"), release());
    let root = machine(std::slice::from_ref(&package));
    let build = ["build", package.module(), "-k", &kernel, "--force"];
    let before = root.picture(&format!("usr/lib/modules/{}", release()));
    let passing = [".log", ".cache", ".pending"];
    let picture = |root: &Root| {
        root.picture("var/lib/dkms").without(|path| passing.iter().any(|top| path.starts_with(top)))
    };
    let (tree, status) = (picture(&root), root.status());
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let root = root.fork();
        let mut dkms = root.start("/usr/bin/dkms", &build);
        let compiles = |(_, line): &(u32, String)| line.contains("cc1");
        let patience = Instant::now() + Duration::from_secs(120);
        while !root.processes().iter().any(compiles) {
            assert!(Instant::now() < patience && !dkms.has_ended(), "no compiler is started");
            sleep(Duration::from_millis(5));
        }
        root.run("kill", &[&format!("-{signal}"), &dkms.id().to_string()]).ok();
        dkms.finish().exits(code).has("interrupted by SIG").has("the module is not ready");
        assert_quiet(&root, "asked to end");
        root.picture(&format!("usr/lib/modules/{}", release())).assert_is(&before, "the objects");
        picture(&root).assert_is(&tree, "the dkms tree");
        assert_eq!(root.status(), status);
        root.dkms(&["autoinstall", "--pending"]).ok();
        root.assert_works(&release(), "v4l2loopback");
        root.assert_settled();
    }
}

/// A Makefile that fetches something, and hangs.
#[test]
fn a_build_that_hangs_is_ended_and_the_others_go_on() {
    let root = machine(&[find("bbswitch")]);
    root.shell(&format!("zstd -q -d /{} -o /srv/built.ko", object(&release(), "bbswitch"))).ok();
    root.write("etc/dkms/alpm-dkms.toml", "[build]\ntimeout = 20\n");
    // Built in no time, however busy the machine is.
    let quick = Recipe::module("quick", "1.0").conf_line("MAKE[0]=\"cp /srv/built.ko quick.ko\"");
    let said = root.install(&[slow(&root, "sleepy"), quick.make(&root)]).hooks_fail();
    said.has(
        "it was not finished after 20 s, the limit of [build] timeout in /etc/dkms/alpm-dkms.toml",
    );
    assert_quiet(&root, "out of time");
    assert!(root.exists(&object(&release(), "quick")));
    let of = |module: &str| installed(module, &release());
    let status = ["sleepy/1.0: added".into(), of("quick/1.0"), of(find("bbswitch").module())];
    assert_status(&root, &status);
}

/// A compiler that gets no more memory, once.
#[test]
fn a_build_that_ran_out_of_memory_is_tried_again_alone() {
    let root = machine(&[]);
    let script = "#!/bin/bash\nif [ ! -e /srv/tried ]; then touch /srv/tried; ulimit -v 100000; fi\n\
                  exec make -C \"$1\" M=\"$PWD\"\n";
    let hungry = Recipe::module("hungry", "1.0")
        .source("hungry.sh", script)
        .conf_line("MAKE[0]=\"./hungry.sh $kernel_source_dir\"")
        .make(&root);
    let said = root.install(&[hungry, find("bbswitch")]).hooks_succeed();
    said.has("out of memory").has("will be retried alone");
    for module in ["hungry", "bbswitch"] {
        root.assert_works(&release(), module);
    }
    root.assert_settled();
}

//! The environment of builds: no libalpm, the wrong kernel release, a packaged module of the same
//! name.

use stories::{Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, release};

/// An upgrade of pacman, curl or gpgme can remove libraries that alpm-query needs.
#[test]
fn modules_are_built_without_libalpm() {
    let root = Root::ready();
    root.write(
        "etc/pacman.d/hooks/01-soname.hook",
        "[Trigger]\nType = Path\nOperation = Install\nTarget = usr/src/*\n[Action]\nWhen = PostTransaction\n\
         Exec = /bin/sh -c 'mkdir /srv/gone && mv /usr/lib/*/libalpm.so* /srv/gone'\n",
    );
    let output =
        root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat()).hooks_succeed();
    // Check that alpm-query really cannot start.
    root.run("/usr/lib/alpm-dkms/alpm-query", &[]).exits(127).has("libalpm.so");
    root.assert_works(&release(), "bbswitch");
    let warnings = output.lines().into_iter().filter(|line| line.contains("alpm-query")).count();
    assert_eq!(warnings, 1, "expected one warning about package names:\n{}", output.text);
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
    root.assert_settled();

    root.hook("dkms-remove", b"").ok();
}

/// A Makefile that runs `uname -r` gets the release of the kernel that the module is built for.
#[test]
fn uname_prints_the_kernel_of_the_build() {
    let root = Root::ready();
    let asks = Recipe::module("asking", "1.0")
        .source(
            "Makefile",
            "obj-m := asking.o\nKDIR := /lib/modules/$(shell uname -r)/build\nall:\n\
             \t$(MAKE) -C $(KDIR) M=$(CURDIR) modules\n",
        )
        .conf_line("MAKE[0]=\"make all\"")
        .make(&root);
    root.install(&[&kernel("linux", 1)[..], &kernel("linux-lts", 1), &[asks]].concat())
        .hooks_succeed();
    for kernel in [release(), find("linux-lts-1").content] {
        root.assert_works(&kernel, "asking");
    }
    root.assert_settled();
}

/// The kernel would not load an object that was built for another one.
#[test]
fn object_for_another_kernel_is_refused() {
    let root = Root::ready();
    let (release, lts) = (release(), find("linux-lts-1").content);
    let stubborn = Recipe::module("stubborn", "1.0")
        .conf_line(&format!(
            "MAKE[0]=\"'make' -C /usr/lib/modules/{lts}/build M=$dkms_tree/stubborn/1.0/build\""
        ))
        .make(&root);
    let output = root
        .install(&[&kernel("linux", 1)[..], &kernel("linux-lts", 1), &[stubborn]].concat())
        .hooks_fail();
    let explained =
        |line: &&str| line.contains("stubborn") && line.contains(&lts) && line.contains(&release);
    let explained = output.lines().iter().any(explained) || output.text.contains("vermagic");
    assert!(explained, "the kernel of the object is not reported:\n{}", output.text);
    root.assert_absent(&release, "stubborn");
    root.assert_works(&lts, "stubborn");
    root.assert_settled();
}

/// The packaged module stays in place, but modprobe loads ours.
#[test]
fn packaged_module_of_the_same_name_is_kept_and_overridden() {
    let root = Root::ready();
    let packages = ["linux-1-bbswitch", "linux-headers-1", "bbswitch"].map(find);
    root.install(&packages).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    // No file of the package was moved or changed.
    root.run("pacman", &["-Qkk", "linux"]).ok().has("0 altered files");
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    assert_eq!(
        root.indexed(&release(), "bbswitch").as_deref(),
        Some("kernel/drivers/bbswitch.ko.zst")
    );
    root.run("pacman", &["-Qkk", "linux"]).ok().has("0 altered files");
    root.assert_settled();
}

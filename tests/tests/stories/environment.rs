//! The environment of the hooks: no libalpm, another root, a kernel module of the same name.

use stories::{Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, release};

/// Story 14: an upgrade of pacman, curl or gpgme can take away what alpm-query needs.
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
    // That it cannot start is a fact of this root, and not of a typing error in this story.
    root.run("/usr/lib/alpm-dkms/alpm-query", &[]).exits(127).has("libalpm.so");
    root.assert_works(&release(), "bbswitch");
    let told = output.lines().into_iter().filter(|line| line.contains("alpm-query")).count();
    assert_eq!(told, 1, "that names are missing is said once:\n{}", output.text);
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
    root.assert_settled();

    root.hook("dkms-remove", b"").ok();
}

/// Story 15: a Makefile that asks the machine gets the kernel that the module is for.
#[test]
fn uname_answers_the_target_kernel() {
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

/// Story 15: an object for another kernel would not load.
#[test]
fn an_object_for_another_kernel_is_refused() {
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
    assert!(explained, "it is not said which kernel the object is for:\n{}", output.text);
    root.assert_absent(&release, "stubborn");
    root.assert_works(&lts, "stubborn");
    root.assert_settled();
}

/// Story 20.
#[test]
fn a_packaged_module_of_the_same_name_stays_and_ours_wins() {
    let root = Root::ready();
    let packages = ["linux-1-bbswitch", "linux-headers-1", "bbswitch"].map(find);
    root.install(&packages).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    // Nothing of the package was moved or changed: no line but the summary.
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

//! Images are judged by their contents, whether or not the generator reported an error.

use stories::{Completed, Root};

use crate::fixture::release;
use crate::image_fixture::{IMAGE, mask, new_images, set_precise, summary_line};
use crate::mkinitcpio::{STOCK, assert_holds, machine, upgrade_zfs};

const CONF: &str = "etc/mkinitcpio.conf";

/// Asserts that an image was generated once, and that none was restored or is pending.
#[track_caller]
fn assert_kept(root: &Root, output: Completed) {
    output.lacks("restored").lacks("outdated:");
    assert_eq!(new_images(root), [format!("/{IMAGE}")]);
    root.assert_settled();
    root.dkms(&["initramfs"]).ok().has("no images to check");
}

/// Asserts that a setting in mkinitcpio.conf which names `module` is reported once.
#[track_caller]
fn assert_names(output: &Completed, setting: &str, module: &str) {
    let want = format!("{setting} in /{CONF} names {module}; the images are complete");
    assert_eq!(output.text.matches(&want).count(), 1, "{want}:\n{}", output.text);
}

/// mkinitcpio fails whenever it runs, because its configuration names a module that does not exist.
#[test]
fn image_is_kept_despite_a_stale_entry() {
    let machine = machine();
    machine.write(CONF, "MODULES=(gone)\nHOOKS=(base zfs)\n");
    let by_hook = machine.fork();
    let output = upgrade_zfs(&by_hook).has("module not found: 'gone'").lacks("regenerating");
    assert_kept(&by_hook, output.has(&summary_line(&release())));
    assert_holds(&by_hook, IMAGE, &release());
    drop(by_hook);

    let precise = machine.fork();
    set_precise(&precise);
    let output = upgrade_zfs(&precise).hooks_succeed().has(&summary_line(&release()));
    assert_names(&output, "MODULES", "gone");
    assert_kept(&precise, output);
    assert_holds(&precise, IMAGE, &release());
}

/// The configuration still names the module that has been removed.
#[test]
fn image_is_kept_without_a_removed_module() {
    let machine = machine();
    machine.write(CONF, "MODULES=(zfs)\nHOOKS=(base)\n");
    let by_hook = machine.fork();
    let output = by_hook.remove(&["zfs-dkms"]).has("module not found: 'zfs'");
    assert_kept(&by_hook, output.lacks("regenerating"));
    drop(by_hook);

    let precise = machine.fork();
    set_precise(&precise);
    let output = precise.remove(&["zfs-dkms"]).hooks_succeed();
    assert_names(&output, "MODULES", "zfs");
    assert_kept(&precise, output);
    drop(precise);

    let by_command = machine.fork();
    by_command.dkms(&["remove", "zfs/1.0", "--all"]).ok().has("run: dkms initramfs");
    let output = by_command.dkms(&["initramfs"]).ok();
    assert_names(&output, "MODULES", "zfs");
    assert_kept(&by_command, output);
}

/// A generator that calls the real one, followed by other commands.
fn then(commands: &str) -> String {
    format!("#!/bin/bash\nmkinitcpio.good \"$@\"\n{commands}\n")
}

#[test]
fn exit_status_of_a_generator_does_not_matter() {
    let machine = machine();
    mask(&machine, STOCK);
    machine.write("etc/less.conf", "HOOKS=(base zfs)\n");
    machine.write(CONF, "HOOKS=(base zfs)\nFILES=(/etc/pacman.conf)\n");
    machine.shell("mkinitcpio -P && mv /usr/bin/mkinitcpio /usr/bin/mkinitcpio.good").ok();
    new_images(&machine);
    let before = machine.bytes(IMAGE);

    let fails = machine.fork();
    fails.write("usr/bin/mkinitcpio", &then("exit 3"));
    let output = upgrade_zfs(&fails).hooks_succeed().has("failed (exit status 3)");
    assert_kept(&fails, output.has("the images are complete").has(&summary_line(&release())));
    assert_holds(&fails, IMAGE, &release());
    drop(fails);

    let less = format!("mkinitcpio.good -k {} -c /etc/less.conf -g /{IMAGE}", release());
    let full = "echo \"cp: error writing '/tmp/x': No space left on device\" >&2; exit 1";
    let bad = [
        ("#!/bin/bash\n".into(), "not regenerated: the generator did not change it"),
        (then(&format!("truncate --size=-3 /{IMAGE}")), "cannot list"),
        // The image is complete, but lacks a file.
        (then(&format!("{less}; {full}")), "ran out of disk space; restored"),
    ];
    for (script, why) in bad {
        let root = machine.fork();
        root.write("usr/bin/mkinitcpio", &script);
        upgrade_zfs(&root).hooks_fail().has(why).has(&format!("outdated: /{IMAGE}"));
        assert!(root.bytes(IMAGE) == before, "{why}");
        assert!(!root.pending().is_empty(), "{why}: the image is not pending");
        root.shell("mv /usr/bin/mkinitcpio.good /usr/bin/mkinitcpio").ok();
        root.dkms(&["initramfs"]).ok().has(&summary_line(&release()));
        assert_holds(&root, IMAGE, &release());
        root.assert_settled();
    }
}

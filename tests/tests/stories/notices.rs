//! Faults that matter are reported in the journal and at login, until they are corrected.

use stories::{Recipe, Root, find};

use crate::fixture::{object, release};

const MOTD: &str = "run/motd.d/alpm-dkms";

/// Installs a `logger` that keeps the entries which it gets for the journal.
fn keep_journal(root: &Root) {
    root.write("usr/bin/logger", "#!/bin/sh\ncat >>/root/journal\n");
}

/// Returns the text that pam_motd shows.
fn shown_at_login(root: &Root) -> String {
    root.shell(&format!("cat /{MOTD}")).ok().text
}

/// Creates a machine with a module that does not build, and a command for notices.
fn machine_with_a_fault() -> Root {
    let root = Root::with_kernel();
    keep_journal(&root);
    let settings = "[notify]\ncommand = \"cat >>/root/notices\"\n";
    root.write("etc/dkms/alpm-dkms.toml", settings);
    let broken = Recipe::module("broken", "1").source("broken.c", "#error unfinished\n");
    let broken = broken.make(&root);
    root.install(&[broken]).hooks_fail();
    root
}

#[test]
fn a_failed_build_is_reported_until_it_is_corrected() {
    let root = machine_with_a_fault();
    let report = shown_at_login(&root);
    assert!(report.starts_with("dkms: broken/1: failed to build for "), "{report}");
    assert!(report.contains("#error unfinished") && report.lines().count() == 1, "{report}");
    assert_eq!(root.read("root/notices"), report);
    let entry = root.read("root/journal");
    assert!(entry.contains(&format!("MESSAGE={report}")), "{entry}");
    assert!(entry.contains("\nMESSAGE_ID=") && entry.contains("\nPRIORITY=3\n"), "{entry}");

    // The same fault is reported once.
    root.install(&[find("bbswitch")]).hooks_succeed();
    assert_eq!(root.read("root/notices"), report);
    assert_eq!(shown_at_login(&root), report);

    root.shell("echo 'MODULE_LICENSE(\"GPL\");' >/usr/src/broken-1/broken.c").ok();
    root.shell("sed -i '1i #include <linux/module.h>' /usr/src/broken-1/broken.c").ok();
    root.dkms(&["install", "broken/1", "-k", &release()]).ok();
    assert!(!root.path(MOTD).is_symlink() && !root.exists("var/lib/dkms/.notice"));
    assert_eq!(root.read("root/notices"), report);
}

#[test]
fn a_unit_reports_a_new_fault() {
    let root = machine_with_a_fault();
    root.shell("rm -r /run/motd.d /root/notices /var/lib/dkms/.notice").ok();
    root.shell("echo '#error still' >/usr/src/broken-1/broken.c").ok();
    // The command of a person, who reads its output.
    root.dkms(&["autoinstall", "-k", &release()]).exits(11);
    assert!(!root.path(MOTD).is_symlink());
    // systemd starts the command as the main process of dkms.service.
    let unit = format!("SYSTEMD_EXEC_PID=$$ exec dkms autoinstall -k {}", release());
    root.shell(&unit).exits(11);
    assert!(shown_at_login(&root).contains("#error still"));
    assert_eq!(root.read("root/notices").lines().count(), 1);
}

#[test]
fn notices_can_be_switched_off() {
    let root = machine_with_a_fault();
    root.write("etc/dkms/alpm-dkms.toml", "[notify]\nenable = false\n");
    root.install(&[find("bbswitch")]);
    assert!(!root.path(MOTD).is_symlink());
    let object = object(&release(), "bbswitch");
    root.shell(&format!("rm /{object}")).ok();
    root.dkms(&["verify"]).exits(11).has("bbswitch");
    assert!(!root.path(MOTD).is_symlink(), "verify changes nothing");
}

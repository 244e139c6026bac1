//! Commands that run while pacman works: in install scriptlets, from cron, from other hooks.

use stories::{Recipe, find};

use crate::fixture::{assert_status, installed, kernel, machine, release, traces};

/// Runs commands that are no children of pacman, waits for them, and prints their output.
const CRON: &str = "#!/bin/sh\n\
    setsid -f sh -c 'dkms autoinstall --all; dkms autoinstall --pending; dkms initramfs; touch /srv/done' \
    >/srv/output 2>&1\n\
    until test -e /srv/done; do sleep 0.05; done\ncat /srv/output\n";

/// pacman waits for the scriptlets of packages, so their commands are carried out at once.
#[test]
fn install_scriptlets_may_call_dkms() {
    let root = machine(&[]);
    let kernel = release();
    let scriptlets = format!(
        "post_install() {{\n  dkms install tiny/$1 -k {kernel} && echo scriptlet installed\n}}\n\
         pre_remove() {{\n  dkms remove tiny/$1 --all && echo scriptlet removed\n}}\n"
    );
    let scriptlets = scriptlets.replace("$1", "${1%-*}");
    let package = Recipe::module("tiny", "1.0").file(".INSTALL", &scriptlets).make(&root);
    root.install(&[package]).hooks_succeed().has("scriptlet installed");
    root.assert_works(&kernel, "tiny");
    root.assert_settled();
    root.remove(&["tiny-dkms"]).hooks_succeed().has("scriptlet removed");
    assert_eq!(traces(&root, "tiny"), [""; 0]);
    root.assert_settled();
}

/// cron runs commands after pacman has begun its transaction.
#[test]
fn commands_leave_the_files_of_a_running_transaction_alone() {
    let root = machine(&[find("bbswitch")]);
    let [old, new] = [release(), find("linux-2").release().to_owned()];
    root.write("srv/cron", CRON);
    root.write(
        "etc/pacman.d/hooks/zz-cron.hook",
        "[Trigger]\nType = Package\nOperation = Upgrade\nTarget = *\n[Action]\nWhen = PreTransaction\n\
         Exec = /srv/cron\n",
    );
    let output = root.install(&[&kernel("linux", 2)[..], &[find("bbswitch-next")]].concat());
    output
        .hooks_succeed()
        .has("left to pacman, which is still running")
        .has("images left to pacman, which is still running")
        .lacks("source missing");
    assert_eq!(root.kernels(), [new.as_str()]);
    root.assert_works(&new, "bbswitch");
    root.assert_absent(&old, "bbswitch");
    assert_status(&root, &[installed(find("bbswitch-next").module(), &new)]);
    root.assert_settled();
}

/// Commands run one after another while transactions run.
#[test]
fn autoinstall_in_a_loop_disturbs_no_transaction() {
    let root = machine(&[find("bbswitch")]);
    let kernel = release();
    let script = "until test -e /srv/stop; do dkms autoinstall --pending; sleep 0.05; done";
    let cron = root.start("bash", &["-c", script]);
    let (old, new) = (find("bbswitch"), find("bbswitch-next"));
    for package in [&new, &old, &new, &old, &new] {
        root.install(std::slice::from_ref(package)).hooks_succeed().lacks("source missing");
        root.assert_works(&kernel, "bbswitch");
    }
    root.write("srv/stop", "");
    let output = cron.finish();
    output.lacks("FAILED").lacks("source missing");
    root.boot_unit().ok();
    assert_status(&root, &[installed(new.module(), &kernel)]);
    root.assert_settled();
}

/// Administrators' copies of Arch's hooks replace ours, and one of them runs before the transaction.
#[test]
fn copies_of_the_hooks_of_arch_settle_nothing_early() {
    let root = machine(&[find("bbswitch")]);
    let triggers =
        "Type = Path\nTarget = usr/src/*/dkms.conf\nTarget = usr/lib/modules/*/build/include/\n";
    for (name, operations, when) in [
        ("70-dkms-install", "Operation = Install\nOperation = Upgrade\n", "PostTransaction"),
        ("71-dkms-remove", "Operation = Remove\n", "PreTransaction"),
    ] {
        let what = name.rsplit('-').next().unwrap_or_default();
        root.write(
            &format!("etc/pacman.d/hooks/{name}.hook"),
            &format!(
                "[Trigger]\n{triggers}{operations}[Action]\nWhen = {when}\n\
                 Exec = /usr/share/libalpm/scripts/dkms {what}\nNeedsTargets\n"
            ),
        );
    }
    let new = find("bbswitch-next");
    root.install(std::slice::from_ref(&new)).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    root.boot_unit().ok();
    assert_status(&root, &[installed(new.module(), &release())]);
    root.assert_settled();
}

/// The first version of alpm-dkms recorded a transaction before it ran.
#[test]
fn records_of_the_first_version_cost_at_most_a_rebuild() {
    let root = machine(&[find("bbswitch")]);
    root.dkms(&["uninstall", find("bbswitch").module(), "-k", &release()]).ok();
    root.shell("mv /usr/src/bbswitch-* /srv").ok();
    root.write(
        "var/lib/dkms/.pending/transaction-bbswitch-0.8-987c070b.toml",
        "[work.transaction]\nsources = [\"bbswitch-0.8\"]\nkernels = []\n",
    );
    root.boot_unit().ok();
    root.dkms(&["status"]).has("bbswitch/0.8");
    root.shell("mv /srv/bbswitch-* /usr/src").ok();
    root.boot_unit().ok();
    root.assert_settled();
}

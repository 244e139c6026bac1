//! pacman is killed before its PostTransaction hooks: a later run finishes the changes that our
//! PreTransaction hook recorded.

use stories::{Root, find};

use crate::fixture::{
    assert_no_processes, assert_status, installed, kernel, machine, release, traces,
};

/// Runs a transaction in which pacman is killed before our PostTransaction hooks.
#[track_caller]
fn transaction_with_pacman_killed(root: &Root, args: &[&str]) {
    let hook = "etc/pacman.d/hooks/00-power.hook";
    root.write(
        hook,
        "[Trigger]\nType = Package\nOperation = Install\nOperation = Upgrade\nOperation = Remove\nTarget = *\n\
         [Action]\nWhen = PostTransaction\nExec = /bin/sh -c 'kill -KILL $PPID'\n",
    );
    root.pacman(args).exits(128 + 9);
    assert_no_processes(root, "pacman was killed");
    root.shell(&format!("rm /{hook} /var/lib/pacman/db.lck")).ok();
}

/// The boot unit, `dkms autoinstall` or the hook of the next transaction builds them.
#[test]
fn new_modules_are_built_after_pacman_is_killed() {
    let root = Root::ready();
    let files = [&kernel("linux", 1)[..], &[find("bbswitch")]].concat();
    let files: Vec<&str> = files.iter().map(|package| package.file.as_str()).collect();
    transaction_with_pacman_killed(&root, &[&["-U"], &files[..]].concat());
    assert_eq!(root.installed_objects(&release()), [""; 0]);
    let by_unit = root.fork();
    by_unit.boot_unit().ok();
    let by_hand = root.fork();
    by_hand.dkms(&["autoinstall", "-k", &release()]).ok();
    // Another module is installed later.
    let by_hook = root.fork();
    by_hook.install(&[find("acpi-call")]).hooks_succeed();
    for root in [by_unit, by_hand, by_hook] {
        root.assert_works(&release(), "bbswitch");
        root.assert_settled();
    }
}

#[test]
fn kernel_upgrade_is_finished_after_pacman_is_killed() {
    let root = machine(&[find("bbswitch")]);
    let [kernel, headers] = kernel("linux", 2);
    transaction_with_pacman_killed(&root, &["-U", &kernel.file, &headers.file]);
    root.boot_unit().ok();
    assert_eq!(root.kernels(), [kernel.release()]);
    root.assert_works(kernel.release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch").module(), kernel.release())]);
    root.assert_settled();
}

#[test]
fn module_upgrade_is_finished_after_pacman_is_killed() {
    let root = machine(&[find("bbswitch")]);
    let new = find("bbswitch-next");
    transaction_with_pacman_killed(&root, &["-U", &new.file]);
    root.assert_works(&release(), "bbswitch");
    root.boot_unit().ok();
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(new.module(), &release())]);
    root.assert_settled();
}

#[test]
fn module_removal_is_finished_after_pacman_is_killed() {
    let root = machine(&[find("bbswitch"), find("acpi-call")]);
    transaction_with_pacman_killed(&root, &["-R", "bbswitch-dkms"]);
    root.boot_unit().ok();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
    root.assert_works(&release(), "acpi_call");
    root.assert_settled();
}

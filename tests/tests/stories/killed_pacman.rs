//! pacman is killed between unpacking and its Post hooks: the changes that the Pre hook recorded are processed later.

use stories::{Root, find};

use crate::fixture::{assert_quiet, assert_status, installed, kernel, machine, release, traces};

/// Runs a transaction in which pacman is killed after it unpacked everything, before any Post hook of ours.
#[track_caller]
fn transaction_without_power(root: &Root, args: &[&str]) {
    let hook = "etc/pacman.d/hooks/00-power.hook";
    root.write(
        hook,
        "[Trigger]\nType = Package\nOperation = Install\nOperation = Upgrade\nOperation = Remove\nTarget = *\n\
         [Action]\nWhen = PostTransaction\nExec = /bin/sh -c 'kill -KILL $PPID'\n",
    );
    root.pacman(args).exits(128 + 9);
    assert_quiet(root, "pacman was killed");
    root.shell(&format!("rm /{hook} /var/lib/pacman/db.lck")).ok();
}

/// Story 16.
#[test]
fn after_pacman_was_killed_new_modules_are_built() {
    let root = Root::ready();
    let files = [&kernel("linux", 1)[..], &[find("bbswitch")]].concat();
    let files: Vec<&str> = files.iter().map(|package| package.file.as_str()).collect();
    transaction_without_power(&root, &[&["-U"], &files[..]].concat());
    assert_eq!(root.placed(&release()), [""; 0]);
    let by_unit = root.fork();
    by_unit.boot_unit().ok();
    let by_hand = root.fork();
    by_hand.dkms(&["autoinstall", "-k", &release()]).ok();
    // Another module, another day.
    let by_hook = root.fork();
    by_hook.install(&[find("acpi-call")]).hooks_succeed();
    for root in [by_unit, by_hand, by_hook] {
        root.assert_works(&release(), "bbswitch");
        root.assert_settled();
    }
}

/// Story 16.
#[test]
fn after_pacman_was_killed_a_kernel_bump_is_finished() {
    let root = machine(&[find("bbswitch")]);
    let [kernel, headers] = kernel("linux", 2);
    transaction_without_power(&root, &["-U", &kernel.file, &headers.file]);
    root.boot_unit().ok();
    assert_eq!(root.kernels(), [kernel.release()]);
    root.assert_works(kernel.release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch").module(), kernel.release())]);
    root.assert_settled();
}

/// Story 16.
#[test]
fn after_pacman_was_killed_a_version_bump_is_finished() {
    let root = machine(&[find("bbswitch")]);
    let new = find("bbswitch-next");
    transaction_without_power(&root, &["-U", &new.file]);
    root.assert_works(&release(), "bbswitch");
    root.boot_unit().ok();
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(new.module(), &release())]);
    root.assert_settled();
}

/// Story 16.
#[test]
fn after_pacman_was_killed_a_removal_is_finished() {
    let root = machine(&[find("bbswitch"), find("acpi-call")]);
    transaction_without_power(&root, &["-R", "bbswitch-dkms"]);
    root.boot_unit().ok();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
    root.assert_works(&release(), "acpi_call");
    root.assert_settled();
}

//! Kernels and headers are removed, headers are installed later, and copies of old kernels remain.

use stories::{Root, find};

use crate::fixture::{assert_status, installed, kernel, machine, release};

/// Removes a kernel together with its headers.
#[test]
fn removed_kernel_leaves_nothing() {
    let root = machine(&[find("bbswitch"), find("acpi-call")]);
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    let (gone, stays) = (release(), find("linux-lts-1").content);
    let compilers = root.count_compilers();
    root.remove(&["linux", "linux-headers"]).hooks_succeed();
    assert_eq!(root.kernels(), [stays.as_str()]);
    let left: Vec<String> = root
        .snapshot("var/lib/dkms")
        .paths()
        .into_iter()
        .filter(|path| path.contains(&gone))
        .collect();
    assert!(left.is_empty(), "files of the removed kernel: {left:?}");
    for module in ["bbswitch", "acpi_call"] {
        root.assert_works(&stays, module);
    }
    let modules = [find("bbswitch"), find("acpi-call")];
    assert_status(&root, &modules.map(|module| installed(module.module(), &stays)));
    compilers.assert_none();
    root.assert_settled();
}

#[test]
fn directory_of_a_removed_kernel_with_other_files_is_kept_and_named_once() {
    let root = machine(&[find("bbswitch")]);
    let file = format!("usr/lib/modules/{}/notes", release());
    root.write(&file, "");
    let upgrade = root.install(&kernel("linux", 2)).hooks_succeed();
    let count = upgrade.text.matches("kept: contains other files, such as notes").count();
    assert_eq!(count, 1, "{}", upgrade.text);
    assert!(root.exists(&file));
}

/// Removes a kernel but not its headers.
#[test]
fn modules_are_removed_with_the_kernel_even_if_headers_remain() {
    let root = machine(&[find("bbswitch")]);
    root.remove(&["linux"]).hooks_succeed();
    assert_eq!(root.names(&format!("usr/lib/modules/{}", release())), ["build"]);
    assert_status(&root, &["bbswitch/0.8: added".into()]);
    root.run("pacman", &["-Qkk", "linux-headers"]).ok();
    root.assert_settled();
}

#[test]
fn modules_are_kept_when_headers_are_removed() {
    let root = machine(&[find("bbswitch")]);
    let compilers = root.count_compilers();
    root.remove(&["linux-headers"]).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
    compilers.assert_none();
    root.assert_settled();
}

#[test]
fn modules_are_built_when_headers_are_installed_later() {
    let root = Root::ready();
    root.install(&[find("linux-1"), find("bbswitch"), find("acpi-call")]).hooks_succeed();
    assert_eq!(root.installed_objects(&release()), [""; 0]);
    root.install(&[find("linux-headers-1")]).hooks_succeed();
    for module in ["bbswitch", "acpi_call"] {
        root.assert_works(&release(), module);
    }
    root.assert_settled();
}

/// Adds hooks like those of kernel-modules-hook, which keep the directory of the running kernel
/// until the next boot.
fn add_kernel_modules_hooks(root: &Root) {
    let hook = |operations: &str, when: &str, script: &str| {
        format!(
            "[Trigger]\nType = Path\n{operations}Target = usr/lib/modules/*/vmlinuz\n\
             [Action]\nWhen = {when}\nExec = /bin/sh -c '{script}'\n"
        )
    };
    let release = release();
    let save = format!("mkdir -p /var/backup && cp -a /usr/lib/modules/{release} /var/backup/");
    let restore = format!("cp -an /var/backup/{release} /usr/lib/modules/");
    let hooks = "etc/pacman.d/hooks";
    let removal = "Operation = Upgrade\nOperation = Remove\n";
    root.write(
        &format!("{hooks}/10-linux-modules-pre.hook"),
        &hook(removal, "PreTransaction", &save),
    );
    let all = "Operation = Install\nOperation = Upgrade\nOperation = Remove\n";
    root.write(
        &format!("{hooks}/10-linux-modules-post.hook"),
        &hook(all, "PostTransaction", &restore),
    );
}

/// The hooks do not touch the copy that kernel-modules-hook keeps, until it is deleted at boot.
#[test]
fn saved_copy_of_the_old_kernel_is_not_touched() {
    let root = machine(&[find("bbswitch")]);
    add_kernel_modules_hooks(&root);
    let (copy, new) = (release(), find("linux-2").content);
    let directory = format!("usr/lib/modules/{copy}");
    let before = root.snapshot(&directory);
    root.install(&kernel("linux", 2)).hooks_succeed();
    root.assert_works(&new, "bbswitch");
    // kmod's hook keeps depmod's files because `kernel/` exists. Ours keeps everything.
    root.snapshot(&directory).assert_matches(&before, "after the kernel upgrade");
    root.assert_works(&copy, "bbswitch");

    let compilers = root.count_compilers();
    root.install(&[find("acpi-call")]).hooks_succeed();
    root.assert_works(&new, "acpi_call");
    root.snapshot(&directory).assert_matches(&before, "after a module was installed");
    let starts = compilers.starts();
    assert!(!starts.iter().any(|start| start.contains(&copy)), "{starts:?}");

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    root.assert_absent(&new, "bbswitch");

    // At boot, linux-modules-cleanup deletes the copy before our unit runs.
    root.shell(&format!("rm -rf /usr/lib/modules/{copy}")).ok();
    root.boot_unit().ok();
    assert_eq!(root.kernels(), [new.as_str()]);
    assert_status(&root, &[installed(find("acpi-call").module(), &new)]);
    assert_eq!(root.tree(), ["acpi-call"]);
    root.assert_settled();
}

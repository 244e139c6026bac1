//! Kernels and headers are removed, come late, or stay behind as copies.

use stories::{Root, find};

use crate::fixture::{assert_status, installed, kernel, machine, release};

/// Story 7.
#[test]
fn removing_a_kernel_leaves_nothing_of_it() {
    let root = machine(&[find("bbswitch"), find("acpi-call")]);
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    let (gone, stays) = (release(), find("linux-lts-1").content);
    let compilers = root.count_compilers();
    root.remove(&["linux", "linux-headers"]).hooks_succeed();
    assert_eq!(root.kernels(), [stays.as_str()]);
    let left: Vec<String> = root
        .picture("var/lib/dkms")
        .paths()
        .into_iter()
        .filter(|path| path.contains(&gone))
        .collect();
    assert!(left.is_empty(), "of the removed kernel there is left: {left:?}");
    for module in ["bbswitch", "acpi_call"] {
        root.assert_works(&stays, module);
    }
    let modules = [find("bbswitch"), find("acpi-call")];
    assert_status(&root, &modules.map(|module| installed(module.module(), &stays)));
    compilers.assert_none();
    root.assert_settled();
}

/// Story 7, where the headers are forgotten.
#[test]
fn headers_that_outlive_their_kernel_are_no_reason_to_keep_its_modules() {
    let root = machine(&[find("bbswitch")]);
    root.remove(&["linux"]).hooks_succeed();
    assert_eq!(root.names(&format!("usr/lib/modules/{}", release())), ["build"]);
    assert_status(&root, &["bbswitch/0.8: added".into()]);
    root.run("pacman", &["-Qkk", "linux-headers"]).ok();
    root.assert_settled();
}

/// Story 8.
#[test]
fn removing_headers_keeps_the_modules() {
    let root = machine(&[find("bbswitch")]);
    let compilers = root.count_compilers();
    root.remove(&["linux-headers"]).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    assert_status(&root, &[installed(find("bbswitch").module(), &release())]);
    compilers.assert_none();
    root.assert_settled();
}

/// Story 9.
#[test]
fn headers_that_come_later_get_the_modules_built() {
    let root = Root::ready();
    root.install(&[find("linux-1"), find("bbswitch"), find("acpi-call")]).hooks_succeed();
    assert_eq!(root.placed(&release()), [""; 0]);
    root.install(&[find("linux-headers-1")]).hooks_succeed();
    for module in ["bbswitch", "acpi_call"] {
        root.assert_works(&release(), module);
    }
    root.assert_settled();
}

/// What kernel-modules-hook does: the running kernel's directory outlives its package until the next boot.
fn keep_the_running_kernel(root: &Root) {
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
    let leaves = "Operation = Upgrade\nOperation = Remove\n";
    root.write(
        &format!("{hooks}/10-linux-modules-pre.hook"),
        &hook(leaves, "PreTransaction", &save),
    );
    let comes = "Operation = Install\nOperation = Upgrade\nOperation = Remove\n";
    root.write(
        &format!("{hooks}/10-linux-modules-post.hook"),
        &hook(comes, "PostTransaction", &restore),
    );
}

/// Story 22.
#[test]
fn a_copy_of_the_old_kernel_is_left_alone_until_it_goes() {
    let root = machine(&[find("bbswitch")]);
    keep_the_running_kernel(&root);
    let (copy, new) = (release(), find("linux-2").content);
    let directory = format!("usr/lib/modules/{copy}");
    let before = root.picture(&directory);
    root.install(&kernel("linux", 2)).hooks_succeed();
    root.assert_works(&new, "bbswitch");
    // kmod's hook removes what depmod wrote, unless it finds `kernel/`; ours touches nothing at all.
    root.picture(&directory).assert_is(&before, "after the kernel bump");
    root.assert_works(&copy, "bbswitch");

    let compilers = root.count_compilers();
    root.install(&[find("acpi-call")]).hooks_succeed();
    root.assert_works(&new, "acpi_call");
    root.picture(&directory).assert_is(&before, "after a module arrived");
    let starts = compilers.starts();
    assert!(!starts.iter().any(|start| start.contains(&copy)), "{starts:?}");

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    root.assert_absent(&new, "bbswitch");

    // What linux-modules-cleanup does at the next boot, before ours.
    root.shell(&format!("rm -rf /usr/lib/modules/{copy}")).ok();
    root.boot_unit().ok();
    assert_eq!(root.kernels(), [new.as_str()]);
    assert_status(&root, &[installed(find("acpi-call").module(), &new)]);
    assert_eq!(root.tree(), ["acpi-call"]);
    root.assert_settled();
}

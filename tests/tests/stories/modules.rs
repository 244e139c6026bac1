//! Modules are upgraded and removed, and one fails to build.

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::traces;

/// Returns two kernels and their headers.
fn kernels() -> Vec<PackageFile> {
    ["linux-1", "linux-headers-1", "linux-lts-1", "linux-lts-headers-1"].map(find).into()
}

fn releases() -> [String; 2] {
    ["linux-1", "linux-lts-1"].map(|kernel| find(kernel).content)
}

#[test]
fn module_upgrade_is_installed_for_every_kernel() {
    let root = Root::ready();
    root.install(&[kernels(), vec![find("bbswitch"), find("vhba")]].concat()).hooks_succeed();
    root.install(&[find("bbswitch-next")]).hooks_succeed();
    let new = find("bbswitch-next");
    for release in releases() {
        root.assert_works(&release, "bbswitch");
        assert_eq!(
            format!("bbswitch/{}", root.modinfo(&release, "bbswitch", "testbed")),
            new.module()
        );
        root.assert_works(&release, "vhba");
    }
    let status = root.status();
    assert!(
        !status.iter().any(|line| line.starts_with(&format!("{},", find("bbswitch").module()))),
        "{status:?}"
    );
    assert!(
        !root.exists(&format!("var/lib/dkms/{}", find("bbswitch").module())),
        "the old version was not removed"
    );
    root.assert_settled();
}

#[test]
fn removed_module_leaves_nothing_and_runs_its_post_remove() {
    let root = Root::ready();
    let module = Recipe::module("tiny", "1.0")
        .conf_line("POST_REMOVE=\"post_remove.sh\"")
        .source("post_remove.sh", "#!/bin/sh\necho \"$PWD $*\" >>/var/log/tiny-removed\n")
        .make(&root);
    root.install(&[kernels(), vec![module, find("bbswitch")]].concat()).hooks_succeed();
    root.remove(&["tiny-dkms"]).hooks_succeed();
    assert!(!root.read("var/log/tiny-removed").is_empty());
    for release in releases() {
        root.assert_absent(&release, "tiny");
        root.assert_works(&release, "bbswitch");
    }
    assert_eq!(traces(&root, "tiny"), [""; 0]);
    assert_eq!(root.tree(), ["bbswitch"]);

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    assert_eq!(traces(&root, "bbswitch"), [""; 0]);
    assert_eq!(root.tree(), [""; 0]);
    for release in releases() {
        assert!(
            !root.exists(&format!("usr/lib/modules/{release}/updates")),
            "an empty directory remains"
        );
    }
    root.assert_settled();
}

/// The failure is reported last, with its log. `dkms autoinstall` retries it, other transactions do
/// not.
#[test]
fn failed_build_is_reported_and_not_retried() {
    let root = Root::ready();
    let broken = Recipe::module("broken", "1.0")
        .edit("broken.c", |code| code + "#error testbed says no\n")
        .make(&root);
    let kernel = ["linux-1", "linux-headers-1"].map(find);
    let packages = [&kernel[..], &[find("bbswitch"), broken, find("vhba")]].concat();
    let output = root.install(&packages).hooks_fail().has("testbed says no");
    let release = find("linux-1").content;
    root.assert_works(&release, "bbswitch");
    root.assert_works(&release, "vhba");
    root.assert_absent(&release, "broken");
    let named = output
        .lines()
        .into_iter()
        .find_map(|line| line.trim().strip_prefix("log:"))
        .unwrap()
        .trim();
    assert!(root.read(named).contains("testbed says no"), "{named} is not the log of the failure");
    // The failure is at the end of the hook's output.
    let last = |word: &str| output.text.rfind(word).unwrap();
    assert!(last("broken") > last("bbswitch") && last("broken") > last("vhba"), "{}", output.text);

    let compilers = root.count_compilers();
    let again = |starts: Vec<String>| starts.iter().any(|start| start.contains("broken"));
    root.install(&[find("acpi-call")]).hooks_succeed();
    root.assert_works(&release, "acpi_call");
    assert!(!again(compilers.starts()), "an unrelated transaction retried the failed build");

    // The reinstallation of this kernel's headers is a request to try again.
    root.install(&[find("linux-headers-1")]).has("broken");
    assert!(again(compilers.starts()), "reinstalled headers did not retry the failed build");

    root.dkms(&["autoinstall", "-k", &release]).has("broken");
    assert!(again(compilers.starts()), "`dkms autoinstall` did not retry the build");
    root.assert_settled();
}

//! Kernels are installed and upgraded, several kernels are installed, and headers are missing.

use stories::{Root, find};

use crate::fixture::{assert_status, installed, kernel};

/// The modules are built before mkinitcpio's hook runs.
#[test]
fn kernel_headers_and_modules_in_one_transaction() {
    let root = Root::ready();
    let modules = ["acpi-call", "bbswitch", "tp_smapi"];
    let output =
        root.install(&[&kernel("linux", 1)[..], &modules.map(find)].concat()).hooks_succeed();
    let release = find("linux-1").content;
    for object in ["acpi_call", "bbswitch", "hdaps", "thinkpad_ec", "tp_smapi"] {
        root.assert_works(&release, object);
        assert!(
            root.installed_objects(&release).contains(&format!("updates/dkms/{object}.ko.zst")),
            "{object} is not in updates/dkms"
        );
    }
    for module in modules {
        assert!(output.text.contains(module), "{module} is not mentioned:\n{}", output.text);
    }
    assert_status(&root, &modules.map(|module| installed(find(module).module(), &release)));
    // mkinitcpio's hook runs after the modules are installed.
    let seen = format!("mkinitcpio sees {release}/updates/dkms/bbswitch.ko.zst");
    assert!(
        root.read("var/log/neighbours.log").contains(&seen),
        "mkinitcpio did not see the modules"
    );
    root.assert_settled();
}

#[test]
fn kernel_upgrade_leaves_nothing_of_the_old_kernel() {
    let root = Root::ready();
    let modules = ["acpi-call", "bbswitch", "vhba"];
    root.install(&[&kernel("linux", 1)[..], &modules.map(find)].concat()).hooks_succeed();
    root.install(&kernel("linux", 2)).hooks_succeed();
    let (old, new) = (find("linux-1").content, find("linux-2").content);
    assert_eq!(root.kernels(), [new.as_str()]);
    for object in ["acpi_call", "bbswitch", "vhba"] {
        root.assert_works(&new, object);
    }
    assert_status(&root, &modules.map(|module| installed(find(module).module(), &new)));
    let left: Vec<String> =
        root.files("var/lib/dkms").into_iter().filter(|file| file.contains(&old)).collect();
    assert!(left.is_empty(), "files of the old kernel: {left:?}");
    root.assert_settled();
}

#[test]
fn second_kernel_gets_the_modules_and_the_first_keeps_them() {
    let root = Root::ready();
    let modules = ["bbswitch", "vhba"];
    root.install(&[&kernel("linux", 1)[..], &modules.map(find)].concat()).hooks_succeed();
    let (first, second) = (find("linux-1").content, find("linux-lts-1").content);
    let object = root.path(&format!("usr/lib/modules/{first}/updates/dkms/bbswitch.ko.zst"));
    let placed = || object.metadata().unwrap().modified().unwrap();
    let before = placed();
    let compilers = root.count_compilers();
    root.install(&kernel("linux-lts", 1)).hooks_succeed();
    for release in [&first, &second] {
        root.assert_works(release, "bbswitch");
        root.assert_works(release, "vhba");
    }
    assert_eq!(placed(), before, "the first kernel's object was installed again");
    let headers = format!("/{first}/build");
    assert!(
        !compilers.starts().iter().any(|start| start.contains(&headers)),
        "modules were built again for the first kernel"
    );
    let lines = |release: &str| modules.map(|module| installed(find(module).module(), release));
    assert_status(&root, &[lines(&first), lines(&second)].concat());
    root.assert_settled();
}

/// Missing headers are a note and not a failure. The modules are built once the headers are
/// installed.
#[test]
fn missing_headers_package_is_named() {
    let root = Root::ready();
    root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat()).hooks_succeed();
    root.install(&[find("linux-lts-1")]).hooks_succeed().has("linux-lts-headers");
    root.assert_works(find("linux-1").release(), "bbswitch");
    assert_eq!(root.installed_objects(find("linux-lts-1").release()), [""; 0]);
    root.install(&[find("linux-lts-headers-1")]).hooks_succeed();
    root.assert_works(find("linux-lts-1").release(), "bbswitch");
    root.assert_settled();
}

/// alpm-dkms is installed on a machine without modules.
#[test]
fn installation_of_alpm_dkms_names_the_headers_package() {
    let root = Root::bare();
    root.install(&[find("linux-1"), find("linux-lts-1")]);
    let note = "note: {release}: no kernel headers installed";
    let [linux, lts] = [find("linux-1"), find("linux-lts-1")]
        .map(|kernel| note.replace("{release}", kernel.release()));
    let fork = root.fork();
    fork.install(&[find("alpm-dkms")]).hooks_succeed().has(&linux).has(&lts);
    drop(fork);
    let both = [find("alpm-dkms"), find("linux-headers-1")];
    let output = root.install(&both).hooks_succeed();
    output.lacks(&linux).has(&lts).has("  run: pacman -S linux-lts-headers");
}

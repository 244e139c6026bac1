//! Kernels come, are upgraded, stand side by side, and lack their headers.

use stories::{Root, find};

use crate::fixture::{assert_status, installed, kernel};

/// Story 1.
#[test]
fn a_kernel_its_headers_and_three_modules_in_one_transaction() {
    let root = Root::ready();
    let modules = ["acpi-call", "bbswitch", "tp_smapi"];
    let output =
        root.install(&[&kernel("linux", 1)[..], &modules.map(find)].concat()).hooks_succeed();
    let release = find("linux-1").content;
    for object in ["acpi_call", "bbswitch", "hdaps", "thinkpad_ec", "tp_smapi"] {
        root.assert_works(&release, object);
        assert!(
            root.placed(&release).contains(&format!("updates/dkms/{object}.ko.zst")),
            "{object} is not where it belongs"
        );
    }
    for module in modules {
        assert!(output.text.contains(module), "{module} is not mentioned:\n{}", output.text);
    }
    assert_status(&root, &modules.map(|module| installed(find(module).module(), &release)));
    // The initramfs is made after the modules.
    let seen = format!("mkinitcpio sees {release}/updates/dkms/bbswitch.ko.zst");
    assert!(
        root.read("var/log/neighbours.log").contains(&seen),
        "mkinitcpio did not see the modules"
    );
    root.assert_settled();
}

/// Story 2.
#[test]
fn a_kernel_bump_leaves_nothing_of_the_old_one() {
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
    assert!(left.is_empty(), "of the old kernel there is left: {left:?}");
    root.assert_settled();
}

/// Story 3.
#[test]
fn a_second_kernel_gets_the_modules_and_the_first_keeps_them() {
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
    assert_eq!(placed(), before, "the first kernel's object was placed again");
    let headers = format!("/{first}/build");
    assert!(
        !compilers.starts().iter().any(|start| start.contains(&headers)),
        "it was built again for the first kernel"
    );
    let lines = |release: &str| modules.map(|module| installed(find(module).module(), release));
    assert_status(&root, &[lines(&first), lines(&second)].concat());
    root.assert_settled();
}

/// Story 12.
#[test]
fn a_kernel_without_headers_names_the_package_to_install() {
    let root = Root::ready();
    root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat()).hooks_succeed();
    // A note is no failure: whoever wants no modules for a kernel needs no headers.
    root.install(&[find("linux-lts-1")]).hooks_succeed().has("linux-lts-headers");
    root.assert_works(find("linux-1").release(), "bbswitch");
    assert_eq!(root.placed(find("linux-lts-1").release()), [""; 0]);
    root.install(&[find("linux-lts-headers-1")]).hooks_succeed();
    root.assert_works(find("linux-lts-1").release(), "bbswitch");
    root.assert_settled();
}

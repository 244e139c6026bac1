//! `dkms lint` on the sources of real modules, and on one that does not build.

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{kernel, release};

/// Returns the source of a package, unpacked but not installed.
fn unpacked(root: &Root, package: &PackageFile) -> String {
    let place = format!("/srv/unpacked/{}", package.name);
    root.shell(&format!("mkdir -p {place} && tar -C {place} -xf {} usr/src", package.file)).ok();
    let names = root.names(&format!("{place}/usr/src"));
    format!("{place}/usr/src/{}", names.first().expect("a source"))
}

/// Returns the findings in a source, without the numbers of lines and the corrections.
fn findings(root: &Root, source: &str) -> Vec<String> {
    let output = root.run("dkms", &["lint", source, "--json"]).text;
    let json: serde_json::Value = serde_json::from_str(&output).expect("the output is JSON");
    let finding = |it: &serde_json::Value| {
        let text = |key: &str| it[key].as_str().expect("a text").to_owned();
        format!("{} {}: {}", text("severity"), text("file"), text("problem"))
    };
    json["findings"].as_array().expect("an array").iter().map(finding).collect()
}

const CLEAN: &str = "note dkms.conf: CLEAN is deprecated and has no effect";
const NO_LIMITS: &str =
    "note dkms.conf: no BUILD_EXCLUSIVE_* directive: dkms tries to build for every kernel";

#[test]
fn findings_in_real_sources() {
    let root = Root::ready_with("corpus-few/mstflint-dkms");
    let modules: [(&str, &[&str]); 12] = [
        ("acpi-call", &[CLEAN]),
        ("bbswitch", &[NO_LIMITS]),
        ("broadcom-sta", &[NO_LIMITS]),
        ("ddcci", &[CLEAN]),
        ("digimend", &[]),
        ("hid-xpadneo", &[]),
        ("lime-forensics", &[NO_LIMITS, CLEAN]),
        ("openrazer-driver", &[]),
        ("tp_smapi", &[NO_LIMITS, CLEAN]),
        ("v4l2loopback", &[]),
        ("vhba", &[NO_LIMITS]),
        ("xone", &[NO_LIMITS]),
    ];
    for (alias, want) in modules {
        let source = unpacked(&root, &find(alias));
        assert_eq!(findings(&root, &source), want, "{alias}");
    }
    let source = root.names("usr/src").into_iter().find(|name| name.starts_with("mstflint-"));
    let source = format!("/usr/src/{}", source.expect("mstflint of the corpus"));
    let placeholder = "error dkms.conf: PACKAGE_VERSION is a placeholder: \"#MODULES_VERSION#\"";
    assert_eq!(findings(&root, &source), [NO_LIMITS, placeholder, CLEAN]);
}

/// A patch does not exist, and an object has another name in the Makefile.
#[test]
fn lint_finds_what_fails_to_build() {
    let root = Root::ready();
    let good = Recipe::module("good", "1.0").conf_line("BUILD_EXCLUSIVE_KERNEL_MIN=6.1");
    let bad = Recipe::module("bad", "1.0")
        .conf_line("BUILD_EXCLUSIVE_KERNEL_MIN=6.1\nPATCH=missing.patch")
        .make(&root);
    let misnamed = Recipe::module("misnamed", "1.0")
        .conf_line("BUILD_EXCLUSIVE_KERNEL_MIN=6.1")
        .source("Makefile", "obj-m := other.o\nother-y := misnamed.o\n")
        .make(&root);
    let good = good.make(&root);
    let want: [(&PackageFile, &[&str]); 3] = [
        (&good, &[]),
        (&bad, &["error dkms.conf: PATCH[0] names patches/missing.patch, which does not exist"]),
        (
            &misnamed,
            &[
                "error dkms.conf: Makefile does not list misnamed.o, so make does not build misnamed.ko",
            ],
        ),
    ];
    for (package, want) in want {
        assert_eq!(findings(&root, &unpacked(&root, package)), want, "{}", package.name);
    }
    root.install(&[&kernel("linux", 1)[..], &[good, bad, misnamed]].concat()).hooks_fail();
    assert_eq!(root.installed_objects(&release()), ["updates/dkms/good.ko.zst"]);
}

//! Malicious targets, names and confs: each is reported, nothing is written outside the trees, and
//! other modules are processed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use stories::{Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, machine, object, release};

/// Creates a machine with the source of `tiny`, unpacked without a transaction.
fn machine_with_tiny() -> Root {
    let root = machine(&[]);
    let tiny = Recipe::module("tiny", "1.0").make(&root);
    root.shell(&format!("bsdtar -xf {} -C / usr/src", tiny.file)).ok();
    root
}

/// Invalid targets, one a line. The last one is `tiny`, without a newline.
const NONSENSE: &[u8] = b"not a path\n\n/\n.\n..\nusr/src\nusr/src/\nusr/src/dkms.conf\nusr/src/nodash/dkms.conf\n\
    usr/src/-1/dkms.conf\nusr/src/a-/dkms.conf\nusr/src/../dkms.conf\nusr/src/../../etc/trap-1/dkms.conf\n\
    usr/src/tiny-1.0/../../../etc/trap-1/dkms.conf\nusr/lib/modules/../modules.order\n\
    usr/lib/modules/../../../etc/trap-1/build/include/\nusr/lib/modules//modules.order\n\
    usr/src/\xff\xfe-1.0/dkms.conf\nusr/lib/modules/\xff\xfe/modules.order\n\
    usr/src/a\x07b\x1b[31m-1.0/dkms.conf\nusr/src/tiny-1.0/dkms.conf";

#[test]
fn invalid_targets_are_ignored() {
    let root = machine_with_tiny();
    // A trap: a target with `..` leads to a module and a kernel here.
    root.write("etc/trap-1/dkms.conf", "touch /etc/trapped\n");
    root.write("etc/trap-1/modules.order", "");
    root.write("etc/trap-1/build/include/x.h", "");
    let before = root.changes_elsewhere();
    let etc = root.snapshot("etc");
    let journal = root.hook("dkms-install --journal", NONSENSE);
    assert!(journal.code < 2, "{}", journal.text);
    let output = root.hook("dkms-install", NONSENSE);
    assert!(output.code < 2, "{}", output.text);
    let output = output.has(": target ignored: matches no trigger of alpm-dkms (and ");
    // The `*` of a trigger also matches `/`, so such a path is not worth a warning.
    root.hook("dkms-install", b"usr/src/../../etc/trap-1/dkms.conf").lacks("ignored");
    assert!(!output.text.contains('\x1b'), "escape sequence in the output: {:?}", output.text);
    root.assert_works(&release(), "tiny");
    assert_eq!(root.tree(), ["tiny"]);

    // The removal hook ignores them, too.
    let placed = root.bytes(&object(&release(), "tiny"));
    let output = root.hook("dkms-remove", NONSENSE);
    assert!(output.code < 2, "{}", output.text);
    assert_eq!(root.bytes(&object(&release(), "tiny")), placed);
    assert_eq!(root.changes_elsewhere(), before);
    root.snapshot("etc").assert_matches(&etc, "after all hooks");
    root.assert_settled();
}

#[test]
fn hundred_thousand_targets_are_processed_in_time() {
    let root = machine_with_tiny();
    let mut targets: Vec<String> = (0..50_000)
        .flat_map(|n| {
            [
                format!("usr/src/ghost-{n}/dkms.conf"),
                format!("usr/lib/modules/9.9.{n}/modules.order"),
            ]
        })
        .collect();
    targets.push("usr/src/tiny-1.0/dkms.conf".into());
    let targets = targets.join("\n");
    let started = Instant::now();
    for program in ["dkms-install --journal", "dkms-install", "dkms-remove"] {
        let output = root.hook(program, targets.as_bytes()).ok();
        assert!(output.lines().len() < 200, "{program} printed {} lines", output.lines().len());
    }
    assert!(started.elapsed() < Duration::from_secs(90), "it took {:?}", started.elapsed());
    root.assert_works(&release(), "tiny");
    assert_eq!(root.kernels(), [release()]);
    assert_eq!(root.tree(), ["tiny"]);
    root.assert_settled();
}

#[test]
fn names_that_are_not_utf8_do_no_harm() {
    let root = machine_with_tiny();
    let odd = std::ffi::OsStr::from_bytes(b"usr/src/b\xff\xfed-1.0");
    let odd = root.path("").join(odd);
    fs::create_dir_all(&odd).unwrap();
    fs::copy(root.path("usr/src/tiny-1.0/dkms.conf"), odd.join("dkms.conf")).unwrap();
    let kernel = root.path("").join(std::ffi::OsStr::from_bytes(b"usr/lib/modules/7\xff"));
    fs::create_dir_all(kernel.join("kernel")).unwrap();
    let tree = root.path("").join(std::ffi::OsStr::from_bytes(b"var/lib/dkms/\xff/1.0"));
    fs::create_dir_all(tree).unwrap();
    let targets = b"usr/src/b\xff\xfed-1.0/dkms.conf\nusr/lib/modules/7\xff/modules.order\nusr/src/tiny-1.0/dkms.conf\n";
    let output = root.hook("dkms-install", targets);
    assert!(output.code < 2, "{}", output.text);
    assert!(output.text.contains("d-1.0"), "the odd source is not reported:\n{}", output.text);
    root.assert_works(&release(), "tiny");
    root.dkms(&["status"]).ok().has("tiny/1.0");
    root.hook("dkms-remove", targets);
    assert!(odd.join("dkms.conf").exists() && kernel.join("kernel").exists());
    root.assert_works(&release(), "tiny");
}

#[test]
fn confs_with_paths_outside_the_trees_fail() {
    let root = Root::ready();
    let module = |name: &str, line: &str| Recipe::module(name, "1.0").conf_line(line).make(&root);
    let packages = [
        module("dest", "DEST_MODULE_LOCATION[0]=\"/updates/../../../../../etc\""),
        module("built", "BUILT_MODULE_LOCATION[0]=\"../../../../../../etc\""),
        module("builtname", "BUILT_MODULE_NAME[0]=\"../../../../../../etc/evil\""),
        module("destname", "DEST_MODULE_NAME[0]=\"../../../../../../etc/evil\""),
        module("slash", "DEST_MODULE_NAME[0]=\"a/b\""),
        find("bbswitch"),
    ];
    let directives = [
        ("dest/", "DEST_MODULE_LOCATION"),
        ("built/", "BUILT_MODULE_LOCATION"),
        ("builtname/", "BUILT_MODULE_NAME"),
        ("destname/", "DEST_MODULE_NAME"),
        ("slash/", "DEST_MODULE_NAME"),
    ];
    let etc = root.snapshot("etc");
    let output = root.install(&[&kernel("linux", 1)[..], &packages].concat()).hooks_fail();
    for (name, directive) in directives {
        let error = output.text.split("error: ").find(|error| error.starts_with(name));
        let explained = error.is_some_and(|error| error.contains(directive));
        assert!(explained, "{directive} of {name} is not reported:\n{}", output.text);
    }
    assert_eq!(root.installed_objects(&release()), ["updates/dkms/bbswitch.ko.zst"]);
    root.assert_works(&release(), "bbswitch");
    root.snapshot("etc").assert_matches(&etc, "after the builds");
    assert_eq!(root.changes_elsewhere(), [""; 0]);
    root.assert_settled();

    root.remove(&["dest-dkms", "built-dkms", "builtname-dkms", "destname-dkms", "slash-dkms"])
        .hooks_succeed();
    root.snapshot("etc").assert_matches(&etc, "after the removal");
    assert_eq!(root.tree(), ["bbswitch"]);
}

/// A missing source does not count as removed.
#[test]
fn unmounted_source_tree_removes_nothing() {
    let root = machine(&[find("bbswitch"), find("acpi-call")]);
    let status = root.status();
    root.shell("mkdir /srv/unmounted && mount --bind /srv/unmounted /usr/src").ok();
    let compilers = root.count_compilers();
    root.hook("dkms-install", format!("usr/lib/modules/{}/modules.order\n", release()).as_bytes());
    root.hook("dkms-remove", b"usr/src/tiny-1.0/dkms.conf\n");
    root.dkms(&["autoinstall", "-k", &release()]);
    root.boot_unit();
    for module in ["acpi_call", "bbswitch"] {
        root.assert_works(&release(), module);
    }
    compilers.assert_none();
    assert_eq!(root.tree(), ["acpi-call", "bbswitch"]);

    root.shell("umount /usr/src").ok();
    root.install(&[find("bbswitch"), find("acpi-call")]).hooks_succeed();
    compilers.assert_none();
    assert_status(&root, &status);
    assert_eq!(
        status,
        ["acpi-call", "bbswitch"].map(|name| installed(find(name).module(), &release()))
    );
    root.assert_settled();
}

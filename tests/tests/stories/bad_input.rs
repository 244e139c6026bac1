//! Targets and confs that no honest package has: each gets its error, nothing is written where it should not be, and
//! the rest is done.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use stories::{Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, machine, object, release};

/// A machine where the source of `tiny` was put, with no transaction telling anybody.
fn machine_with_tiny() -> Root {
    let root = machine(&[]);
    let tiny = Recipe::module("tiny", "1.0").make(&root);
    root.shell(&format!("bsdtar -xf {} -C / usr/src", tiny.file)).ok();
    root
}

/// Targets that are none, each in a line; `tiny` is the last, and its line is not finished.
const NONSENSE: &[u8] = b"not a path\n\n/\n.\n..\nusr/src\nusr/src/\nusr/src/dkms.conf\nusr/src/nodash/dkms.conf\n\
    usr/src/-1/dkms.conf\nusr/src/a-/dkms.conf\nusr/src/../dkms.conf\nusr/src/../../etc/trap-1/dkms.conf\n\
    usr/src/tiny-1.0/../../../etc/trap-1/dkms.conf\nusr/lib/modules/../modules.order\n\
    usr/lib/modules/../../../etc/trap-1/build/include/\nusr/lib/modules//modules.order\n\
    usr/src/\xff\xfe-1.0/dkms.conf\nusr/lib/modules/\xff\xfe/modules.order\n\
    usr/src/a\x07b\x1b[31m-1.0/dkms.conf\nusr/src/tiny-1.0/dkms.conf";

#[test]
fn targets_that_are_none_are_passed_over() {
    let root = machine_with_tiny();
    // A trap: whoever follows `..` finds a module and a kernel here.
    root.write("etc/trap-1/dkms.conf", "touch /etc/trapped\n");
    root.write("etc/trap-1/modules.order", "");
    root.write("etc/trap-1/build/include/x.h", "");
    let before = root.trespasses();
    let etc = root.picture("etc");
    let journal = root.hook("dkms-install --journal", NONSENSE);
    assert!(journal.code < 2, "{}", journal.text);
    let output = root.hook("dkms-install", NONSENSE);
    assert!(output.code < 2, "{}", output.text);
    // All but those that may well be sources, by their form.
    let said = output.text.contains("not a path") && output.text.contains("15 targets");
    assert!(said, "it is not said how many targets are none:\n{}", output.text);
    root.hook("dkms-install", b"usr/src/../../etc/trap-1/dkms.conf")
        .has("usr/src/../../etc/trap-1");
    assert!(!output.text.contains('\x1b'), "a name commands the terminal: {:?}", output.text);
    root.assert_works(&release(), "tiny");
    assert_eq!(root.tree(), ["tiny"]);

    // Nothing is removed for them either.
    let placed = root.bytes(&object(&release(), "tiny"));
    let output = root.hook("dkms-remove", NONSENSE);
    assert!(output.code < 2, "{}", output.text);
    assert_eq!(root.bytes(&object(&release(), "tiny")), placed);
    assert_eq!(root.trespasses(), before);
    root.picture("etc").assert_is(&etc, "after all hooks");
    root.assert_settled();
}

#[test]
fn a_hundred_thousand_targets_are_read_in_seconds() {
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
        assert!(output.lines().len() < 200, "{program} says {} lines", output.lines().len());
    }
    assert!(started.elapsed() < Duration::from_secs(90), "it took {:?}", started.elapsed());
    root.assert_works(&release(), "tiny");
    assert_eq!(root.kernels(), [release()]);
    assert_eq!(root.tree(), ["tiny"]);
    root.assert_settled();
}

#[test]
fn names_that_are_no_text_harm_nobody() {
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
    assert!(output.text.contains("d-1.0"), "nothing is said of the odd source:\n{}", output.text);
    root.assert_works(&release(), "tiny");
    root.dkms(&["status"]).ok().has("tiny/1.0");
    root.hook("dkms-remove", targets);
    assert!(odd.join("dkms.conf").exists() && kernel.join("kernel").exists());
    root.assert_works(&release(), "tiny");
}

#[test]
fn confs_that_lead_out_of_the_trees_fail_alone() {
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
        ("dest ", "DEST_MODULE_LOCATION"),
        ("built ", "BUILT_MODULE_LOCATION"),
        ("builtname ", "BUILT_MODULE_NAME"),
        ("destname ", "DEST_MODULE_NAME"),
        ("slash ", "DEST_MODULE_NAME"),
    ];
    let etc = root.picture("etc");
    let output = root.install(&[&kernel("linux", 1)[..], &packages].concat()).hooks_fail();
    for (name, directive) in directives {
        let told = output.text.split("error: ").find(|told| told.starts_with(name));
        let explained = told.is_some_and(|told| told.contains(directive));
        assert!(explained, "{directive} of {name} is not explained:\n{}", output.text);
    }
    assert_eq!(root.placed(&release()), ["updates/dkms/bbswitch.ko.zst"]);
    root.assert_works(&release(), "bbswitch");
    root.picture("etc").assert_is(&etc, "after the builds");
    assert_eq!(root.trespasses(), [""; 0]);
    root.assert_settled();

    root.remove(&["dest-dkms", "built-dkms", "builtname-dkms", "destname-dkms", "slash-dkms"])
        .hooks_succeed();
    root.picture("etc").assert_is(&etc, "after the removal");
    assert_eq!(root.tree(), ["bbswitch"]);
}

/// A source that is merely out of sight is not a removed one.
#[test]
fn an_unmounted_source_tree_removes_nothing() {
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

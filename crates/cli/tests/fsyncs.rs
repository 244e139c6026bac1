//! Counts the fsync calls of a run with strace. A run must sync all its changes before it clears
//! pending work, but each fsync may take many milliseconds. Also tests runs in which fsync fails.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, as it should")]

use std::collections::BTreeMap;

use assert_cmd::Command;
use rstest::rstest;
use testroot::TestRoot;

const K: &str = "7.2.12-arch1-1";

/// The maximum number of fsync calls for each module, except those for depmod's files.
const MOST: usize = 8;

/// Returns a root with a kernel and `modules` modules that have been added.
fn root(modules: usize) -> TestRoot {
    let root = TestRoot::new();
    root.kernel(K).pkgbase("linux").headers();
    root.write("usr/bin/mkinitcpio", "");
    root.depmod();
    for number in 0..modules {
        root.source(&format!("foo{number}"), "1.0");
        dkms(&root, &["add", &format!("foo{number}/1.0")]).assert().success();
    }
    root
}

fn dkms(root: &TestRoot, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkms"));
    command.arg("--root").arg(root.path()).args(words).env("PATH", root.search_path());
    command
}

/// Returns a command that runs `dkms` under strace with additional `options`.
fn strace(root: &TestRoot, options: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "trace=fsync,fdatasync,sync,syncfs,sync_file_range"]);
    command.arg("-o").arg(root.programs().join("calls")).args(options);
    command.arg(env!("CARGO_BIN_EXE_dkms")).arg("--root").arg(root.path()).args(words);
    command.env("PATH", root.search_path());
    command
}

/// Runs `dkms` under strace. Returns the system calls that sync files, each with the path in the
/// root, in order.
fn syncs(root: &TestRoot, words: &[&str]) -> Vec<String> {
    strace(root, &[], words).assert().success();
    let text = std::fs::read_to_string(root.programs().join("calls")).unwrap();
    // strace splits a call into two lines if another thread makes a call in between.
    let calls = text.lines().filter(|line| line.contains("sync") && !line.contains(" resumed>"));
    let top = root.path().display().to_string();
    let path = |line: &str| {
        let path = line.split_once('<').unwrap().1.split_once('>').unwrap().0;
        path.replace(&format!("{top}/"), "")
    };
    calls.map(path).collect()
}

/// Returns true if `path` is a file that depmod writes, or the directory of these files.
fn is_of_depmod(path: &str) -> bool {
    let below = path.strip_prefix(&format!("usr/lib/modules/{K}"));
    below.is_some_and(|path| path.is_empty() || path.starts_with("/modules."))
}

#[rstest]
#[case::built(10, false)]
#[case::restored_from_the_cache(10, true)]
#[ignore = "needs strace: run make unit"]
fn a_module_costs_few_fsyncs(#[case] modules: usize, #[case] from_cache: bool) {
    let root = root(modules);
    if from_cache {
        dkms(&root, &["autoinstall", "-k", K]).assert().success();
        for number in 0..modules {
            dkms(&root, &["unbuild", &format!("foo{number}/1.0"), "--all"]).assert().success();
        }
    }
    let calls = syncs(&root, &["autoinstall", "-k", K]);
    for number in 0..modules {
        assert!(root.exists(format!("usr/lib/modules/{K}/updates/dkms/foo{number}.ko")));
    }
    let (depmod, own): (Vec<_>, Vec<_>) = calls.iter().partition(|path| is_of_depmod(path));
    let shown = own.iter().map(|path| path.as_str()).collect::<Vec<_>>().join("\n");
    assert!(own.len() <= MOST * modules, "{} for {modules} modules:\n{shown}", own.len());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    depmod.iter().for_each(|path| *counts.entry(path.as_str()).or_default() += 1);
    assert!(counts.len() > 3 && counts.values().all(|count| *count == 1), "{counts:?}");
}

/// A regeneration that is lost would leave the old module in an image.
#[test]
#[ignore = "needs strace: run make unit"]
fn pending_images_are_synced() {
    let root = root(1);
    for command in ["install", "uninstall"] {
        let calls = syncs(&root, &[command, "foo0/1.0", "-k", K]);
        let is_synced = calls.iter().any(|path| path.contains("/.pending/image-"));
        assert!(is_synced, "{command}: {calls:#?}");
    }
}

/// Each case is a path that cannot be synced.
#[rstest]
#[case::index(format!("usr/lib/modules/{K}/modules.dep"))]
#[case::directory_of_the_objects(format!("usr/lib/modules/{K}/updates/dkms"))]
#[case::record(format!("var/lib/dkms/foo0/1.0/{K}/x86_64/alpm-dkms.toml"))]
#[case::link_of_the_installed_version("var/lib/dkms/foo0".to_owned())]
#[ignore = "needs strace: run make unit"]
fn work_stays_pending_if_its_changes_cannot_be_synced(#[case] path: String) {
    let root = root(1);
    let install = ["install", "foo0/1.0", "-k", K];
    let fails = ["-P", &root.at(&path).display().to_string(), "-e", "inject=fsync:error=EIO"]
        .map(str::to_owned);
    let fails = fails.each_ref().map(String::as_str);
    let output = strace(&root, &fails, &install).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains(&path), "{errors}");
    let pending = root.listing("var/lib/dkms/.pending");
    assert!(pending.contains("/install-foo0_1.0_"), "{errors}{pending}");
    dkms(&root, &["autoinstall", "--pending"]).assert().success();
    assert!(!root.listing("var/lib/dkms/.pending").contains("install"));
}

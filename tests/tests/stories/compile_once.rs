//! Compiler probes and precompiled headers are shared between modules.

use stories::{Compilers, PackageFile, Root, find};

use crate::fixture::{kernel, machine, release};

const MODULES: [&str; 3] = ["bbswitch", "vhba", "v4l2loopback"];

/// Nine objects in total, enough for the headers to be precompiled.
const MANY: [&str; 4] = ["digimend", "tp_smapi", "bbswitch", "vhba"];

/// Returns the paths and the digests of the installed objects.
fn objects(root: &Root, release: &str) -> Vec<(String, String)> {
    let without_name = |path: String| {
        let sum = root.shell(&format!("zstd -dcq /usr/lib/modules/{release}/{path} | sha256sum"));
        (path, sum.ok().text)
    };
    root.installed_objects(release).into_iter().map(without_name).collect()
}

/// Installs modules with these settings of `[build]` and without a cache. Returns the arguments of
/// the compilers.
#[track_caller]
fn build(
    root: &Root,
    compilers: &Compilers<'_>,
    modules: &[PackageFile],
    settings: &str,
) -> Vec<String> {
    root.write("etc/dkms/alpm-dkms.toml", &format!("[build]\n{settings}\n[cache]\nsize = 0\n"));
    root.install(modules).hooks_succeed();
    assert!(!root.exists("var/lib/dkms/.bin/once"), "shared results were not deleted");
    compilers.starts()
}

/// Counts the starts whose arguments contain `what`.
fn count(starts: &[String], what: &str) -> usize {
    starts.iter().filter(|start| start.contains(what)).count()
}

#[test]
fn compiler_probes_are_shared_between_modules() {
    let root = machine(&[]);
    let modules = MODULES.map(find);
    let compilers = root.count_compilers();
    // Counts probes of compiler options.
    let build = |compile_once: bool| {
        // With one job, no two modules start the same probe at the same time.
        let settings = format!("compile_once = {compile_once}\njobs = 1");
        let starts = build(&root, &compilers, &modules, &settings);
        count(&starts, "/dev/null")
    };
    let options = build(true);
    let once = objects(&root, &release());
    root.remove(&modules.each_ref().map(|package| package.name.as_str())).hooks_succeed();
    let all_options = build(false);
    // The probe of an option that the compiler lacks is repeated by each module.
    assert!(options >= all_options / MODULES.len(), "{options} of {all_options}");
    assert!(options < all_options / 2, "{options} of {all_options}");
    assert_eq!(objects(&root, &release()), once, "the objects differ");
}

#[test]
fn precompiled_headers_are_shared_between_modules() {
    let root = machine(&kernel("linux-lts", 1));
    let releases = ["linux-1", "linux-lts-1"].map(|alias| find(alias).release().to_owned());
    let modules = MANY.map(find);
    let compilers = root.count_compilers();
    let build = |compile_once: bool| {
        let settings = format!("compile_once = {compile_once}");
        let starts = build(&root, &compilers, &modules, &settings);
        let objects = releases.each_ref().map(|release| objects(&root, release));
        (count(&starts, "-x c-header"), count(&starts, "/includes.h -include"), objects)
    };
    let (made, used, once) = build(true);
    root.remove(&modules.each_ref().map(|package| package.name.as_str())).hooks_succeed();
    let (never_made, never_used, each) = build(false);

    assert_eq!((made, never_made, never_used), (releases.len(), 0, 0));
    let all = once.iter().map(Vec::len).sum::<usize>();
    assert!(all >= 18, "{once:?}");
    // Objects compiled before the precompiled headers are ready do not use them.
    assert!(used > all / 2, "{used} of {all}");
    assert_eq!(once, each, "the objects differ");
}

//! Compilers are started through Debian's ccache and distcc, for two kernels at once.

use stories::{PackageFile, Recipe, Root, find};

use crate::fixture::{kernel, machine, release};

/// Creates a machine with two kernels that compiles through `launcher`, for both at once, and has
/// no build cache. Returns the releases of the kernels.
fn machine_with(launcher: &str) -> (Root, [String; 2]) {
    let root = machine(&kernel("linux-lts", 1));
    root.copy_stage("launchers");
    root.write(
        "etc/dkms/alpm-dkms.toml",
        &format!("[build]\nlauncher = \"{launcher}\"\njobs = 2\n[cache]\nsize = 0\n"),
    );
    (root, ["linux-1", "linux-lts-1"].map(|name| find(name).content))
}

/// Returns a module whose objects name their kernel, in a header that PRE_BUILD writes. Its build
/// compiles nothing before the one for the other kernel has started as well.
fn paired(root: &Root) -> PackageFile {
    let wait = "#!/bin/sh\nmkdir -p /var/log/paired; : >/var/log/paired/$1\n\
                echo \"#define KERNEL \\\"$1\\\"\" >kernel.h\n\
                for i in $(seq 200); do [ $(ls /var/log/paired | wc -l) = 2 ] && exit\n\
                sleep 0.1; done; exit 1\n";
    Recipe::module("paired", "1.0")
        .conf_line("PRE_BUILD=\"wait.sh $kernelver\"")
        .source("wait.sh", wait)
        .edit("paired.c", |code| code + "#include \"kernel.h\"\nMODULE_INFO(kernel, KERNEL);\n")
        .make(root)
}

/// Asserts that the module is installed for each kernel, as compiled for that kernel.
#[track_caller]
fn assert_paired(root: &Root, releases: &[String]) {
    for release in releases {
        root.assert_works(release, "paired");
        assert_eq!(root.modinfo(release, "paired", "kernel"), *release);
    }
}

/// Returns the sum of these statistics of ccache.
fn counted(root: &Root, names: &[&str]) -> u32 {
    let counts = root.shell("CCACHE_DIR=/var/lib/dkms/.cache/ccache ccache --print-stats").ok();
    let of = |name: &&str| -> u32 {
        let line = counts.lines().into_iter().find_map(|line| line.strip_prefix(*name));
        line.and_then(|count| count.trim().parse().ok()).expect("a count")
    };
    names.iter().map(of).sum()
}

const HITS: [&str; 2] = ["direct_cache_hit\t", "preprocessed_cache_hit\t"];

#[test]
fn second_builds_for_two_kernels_use_ccache() {
    let (root, releases) = machine_with("ccache");
    let module = paired(&root);
    root.install(std::slice::from_ref(&module)).hooks_succeed();
    assert_paired(&root, &releases);
    let misses = counted(&root, &["cache_miss\t"]);
    assert!(misses > 0, "ccache was not used");
    let hits = counted(&root, &HITS);

    root.remove(&["paired-dkms"]).hooks_succeed();
    root.shell("rm -r /var/log/paired").ok();
    root.install(std::slice::from_ref(&module)).hooks_succeed().has("built and installed");
    assert_paired(&root, &releases);
    assert!(counted(&root, &HITS) >= hits + misses, "some compilations were not cache hits");
    assert_eq!(counted(&root, &["cache_miss\t"]), misses);
    root.assert_settled();

    // The launcher is not an input of builds: removing it causes no rebuild.
    root.write("etc/dkms/alpm-dkms.toml", "[cache]\nsize = 0\n");
    let compilers = root.count_compilers();
    root.install(&[module, find("linux-headers-1")]).hooks_succeed();
    compilers.assert_none();
}

#[test]
fn distcc_server_compiles_for_two_kernels() {
    let (root, releases) = machine_with("distcc");
    root.write("etc/distcc/hosts", "127.0.0.1:3642/4\n");
    // A real server would run on another machine.
    let server = root.start(
        "distccd",
        &[
            "--daemon",
            "--no-detach",
            "--user=nobody",
            "--allow=127.0.0.1",
            "--listen=127.0.0.1",
            "--port=3642",
            "--enable-tcp-insecure",
            "--log-file=/tmp/distccd.log",
        ],
    );
    root.shell("for i in {1..100}; do : </dev/tcp/127.0.0.1/3642 && exit; sleep 0.1; done; exit 1")
        .ok();
    let module = paired(&root);
    root.install(&[module]).hooks_succeed();
    assert_paired(&root, &releases);
    let log = root.read("tmp/distccd.log");
    let done = log.lines().filter(|line| line.contains("COMPILE_OK") && line.ends_with("paired.c"));
    assert_eq!(done.count(), 2, "the server did not compile for both kernels:\n{log}");
    root.kill_everything();
    drop(server);
    root.assert_settled();
}

#[test]
fn preflight_compiles_through_ccache() {
    let (root, _) = machine_with("ccache");
    root.install(&[Recipe::module("one", "1.0").make(&root)]).hooks_succeed();
    let misses = counted(&root, &["cache_miss\t"]);
    root.unmask_preflight();
    let upgrade = root.install(&kernel("linux", 2)).hooks_succeed();
    upgrade.has("1 module built for").has("installed from the cache");
    assert!(counted(&root, &["cache_miss\t"]) > misses, "the preflight did not use ccache");
}

#[test]
fn missing_launcher_is_reported_once() {
    let root = machine(&[]);
    root.write("etc/dkms/alpm-dkms.toml", "[build]\nlauncher = \"ccache\"\n");
    let output = root.install(&[find("bbswitch"), find("vhba")]).hooks_succeed();
    let warning = "ccache: launcher not found ([build] launcher in";
    assert_eq!(output.text.matches(warning).count(), 1, "{}", output.text);
    root.assert_works(&release(), "bbswitch");
    root.assert_works(&release(), "vhba");
}

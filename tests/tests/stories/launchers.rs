//! Compilers are started through Debian's ccache and distcc.

use stories::{Root, find};

use crate::fixture::{machine, release};

/// Creates a machine that compiles through `launcher` and has no build cache.
fn machine_with(launcher: &str) -> Root {
    let root = machine(&[]);
    root.copy_stage("launchers");
    root.write(
        "etc/dkms/alpm-dkms.toml",
        &format!("[build]\nlauncher = \"{launcher}\"\n[cache]\nsize = 0\n"),
    );
    root
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
fn second_build_uses_ccache() {
    let root = machine_with("ccache");
    root.install(&[find("bbswitch")]).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    let misses = counted(&root, &["cache_miss\t"]);
    assert!(misses > 0, "ccache was not used");
    let hits = counted(&root, &HITS);

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    root.install(&[find("bbswitch")]).hooks_succeed().has("built and installed");
    root.assert_works(&release(), "bbswitch");
    assert!(counted(&root, &HITS) >= hits + misses, "some compilations were not cache hits");
    assert_eq!(counted(&root, &["cache_miss\t"]), misses);
    root.assert_settled();

    // The launcher is not an input of builds: removing it causes no rebuild.
    root.write("etc/dkms/alpm-dkms.toml", "[cache]\nsize = 0\n");
    let compilers = root.count_compilers();
    root.install(&[find("bbswitch"), find("linux-headers-1")]).hooks_succeed();
    compilers.assert_none();
}

#[test]
fn distcc_server_compiles_the_module() {
    let root = machine_with("distcc");
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
    root.install(&[find("bbswitch")]).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    let log = root.read("tmp/distccd.log");
    let mut done = log.lines().filter(|line| line.contains("COMPILE_OK"));
    assert!(done.any(|line| line.contains("bbswitch.c")), "the server compiled nothing:\n{log}");
    root.kill_everything();
    drop(server);
    root.assert_settled();
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

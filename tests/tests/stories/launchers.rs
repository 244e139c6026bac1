//! Compilers are started through ccache or distcc, Debian's own.

use stories::{Root, find};

use crate::fixture::{machine, release};

/// A machine with a kernel and ccache and distcc, compiling through `launcher`. What comes back is compiled again.
fn machine_with(launcher: &str) -> Root {
    let root = machine(&[]);
    root.lay_over("launchers");
    root.write(
        "etc/dkms/alpm-dkms.toml",
        &format!("[build]\nlauncher = \"{launcher}\"\n[cache]\nsize = 0\n"),
    );
    root
}

/// What ccache counted so far under these names.
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
fn the_second_build_comes_out_of_ccache() {
    let root = machine_with("ccache");
    root.install(&[find("bbswitch")]).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
    let misses = counted(&root, &["cache_miss\t"]);
    assert!(misses > 0, "ccache saw no compilation");
    let hits = counted(&root, &HITS);

    root.remove(&["bbswitch-dkms"]).hooks_succeed();
    root.install(&[find("bbswitch")]).hooks_succeed().has("built and installed");
    root.assert_works(&release(), "bbswitch");
    assert!(counted(&root, &HITS) >= hits + misses, "not all that was compiled before was a hit");
    assert_eq!(counted(&root, &["cache_miss\t"]), misses);
    root.assert_settled();

    // A launcher is no input: without it, what it helped to build is not built again.
    root.write("etc/dkms/alpm-dkms.toml", "[cache]\nsize = 0\n");
    let compilers = root.count_compilers();
    root.install(&[find("bbswitch"), find("linux-headers-1")]).hooks_succeed();
    compilers.assert_none();
}

#[test]
fn distcc_sends_the_compilers_work_away() {
    let root = machine_with("distcc");
    root.write("etc/distcc/hosts", "127.0.0.1:3642/4\n");
    // The peer would be another machine, with users of its own.
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
    assert!(done.any(|line| line.contains("bbswitch.c")), "the server did nothing:\n{log}");
    root.kill_everything();
    drop(server);
    root.assert_settled();
}

#[test]
fn a_launcher_that_is_missing_is_told_once() {
    let root = machine(&[]);
    root.write("etc/dkms/alpm-dkms.toml", "[build]\nlauncher = \"ccache\"\n");
    let output = root.install(&[find("bbswitch"), find("vhba")]).hooks_succeed();
    let warning = "there is no program ccache, which [build] launcher in";
    assert_eq!(output.text.matches(warning).count(), 1, "{}", output.text);
    root.assert_works(&release(), "bbswitch");
    root.assert_works(&release(), "vhba");
}

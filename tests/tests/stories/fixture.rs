//! Machines, paths and assertions that the stories share.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{PackageFile, Root, find};

/// Returns the packages of a kernel and its headers.
pub(crate) fn kernel(name: &str, release: u8) -> [PackageFile; 2] {
    [find(&format!("{name}-{release}")), find(&format!("{name}-headers-{release}"))]
}

/// Returns the release of `linux-1`, the kernel of most stories.
pub(crate) fn release() -> String {
    find("linux-1").content
}

/// Creates a machine with `linux-1`, its headers and these modules.
#[track_caller]
pub(crate) fn machine(modules: &[PackageFile]) -> Root {
    let root = Root::with_kernel();
    if !modules.is_empty() {
        root.install(modules).hooks_succeed();
    }
    root
}

/// Returns the path of an installed object.
pub(crate) fn object(release: &str, module: &str) -> String {
    format!("usr/lib/modules/{release}/updates/dkms/{module}.ko.zst")
}

/// Asserts that `dkms status` of both alpm-dkms and the real dkms prints these lines, in any order.
#[track_caller]
pub(crate) fn assert_status(root: &Root, want: &[String]) {
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let want = sorted(want.to_vec());
    assert_eq!(sorted(root.status()), want, "status of alpm-dkms");
    assert_eq!(sorted(root.peer_status()), want, "status of the real dkms");
}

/// Returns the `dkms status` line of an installed module.
pub(crate) fn installed(module: &str, release: &str) -> String {
    format!("{module}, {release}, x86_64: installed")
}

/// Returns the paths of a module in the dkms tree and the kernel directories, without the cache.
pub(crate) fn traces(root: &Root, module: &str) -> Vec<String> {
    let trees = ["var/lib/dkms", "usr/lib/modules"];
    let paths = trees.iter().flat_map(|tree| root.snapshot(tree).paths());
    let counts = |path: &String| !path.contains("/build/") && !path.starts_with(".cache/");
    paths.filter(counts).filter(|path| path.contains(module)).collect()
}

/// Asserts that all processes in a root exit within a few seconds.
#[track_caller]
pub(crate) fn assert_no_processes(root: &Root, when: &str) {
    let patience = Instant::now() + Duration::from_secs(3);
    while !root.processes().is_empty() && Instant::now() < patience {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(root.processes(), [], "{when}: processes remain");
}

/// Prints a line for `make check-power`, which shows the output of its tests.
#[expect(clippy::print_stdout, reason = "the figures of a long test")]
pub(crate) fn tell(line: &str) {
    println!("{line}");
}

//! Machines, paths and assertions that several stories share.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stories::{PackageFile, Root, find};

/// A kernel and its headers.
pub(crate) fn kernel(name: &str, release: u8) -> [PackageFile; 2] {
    [find(&format!("{name}-{release}")), find(&format!("{name}-headers-{release}"))]
}

/// The release of the kernel that most stories are about.
pub(crate) fn release() -> String {
    find("linux-1").content
}

/// A machine with that kernel, its headers and these modules.
#[track_caller]
pub(crate) fn machine(modules: &[PackageFile]) -> Root {
    let root = Root::ready();
    root.install(&[&kernel("linux", 1), modules].concat()).hooks_succeed();
    root
}

/// Where a module's object is placed for a kernel.
pub(crate) fn object(release: &str, module: &str) -> String {
    format!("usr/lib/modules/{release}/updates/dkms/{module}.ko.zst")
}

/// Asserts that our status and the real dkms's are these lines.
#[track_caller]
pub(crate) fn assert_status(root: &Root, want: &[String]) {
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let want = sorted(want.to_vec());
    assert_eq!(sorted(root.status()), want, "our status");
    assert_eq!(sorted(root.peer_status()), want, "the real dkms's status");
}

/// The status line of `name/version` installed for a kernel.
pub(crate) fn installed(module: &str, release: &str) -> String {
    format!("{module}, {release}, x86_64: installed")
}

/// What is left of a module in the dkms tree and in the kernels' directories; the cache, which is nobody's, left out.
pub(crate) fn traces(root: &Root, module: &str) -> Vec<String> {
    let trees = ["var/lib/dkms", "usr/lib/modules"];
    let paths = trees.iter().flat_map(|tree| root.picture(tree).paths());
    let counts = |path: &String| !path.contains("/build/") && !path.starts_with(".cache/");
    paths.filter(counts).filter(|path| path.contains(module)).collect()
}

/// Asserts that nothing runs in a root a moment after its programs were killed.
#[track_caller]
pub(crate) fn assert_quiet(root: &Root, when: &str) {
    let patience = Instant::now() + Duration::from_secs(3);
    while !root.processes().is_empty() && Instant::now() < patience {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(root.processes(), [], "{when}: processes are left");
}

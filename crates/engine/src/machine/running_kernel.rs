//! Facts about the running kernel, which are wrong for any other kernel.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use memchr::memmem;

use crate::names::KernelRelease;

/// The files of /proc that describe the running kernel. They are empty in builds for other kernels:
/// a module with the addresses of another kernel would crash.
pub(crate) const RUNNING_KERNEL: [&str; 2] = ["/proc/kallsyms", "/proc/config.gz"];

/// Extensions of files that are neither scripts nor makefiles.
const NOT_SCRIPTS: [&str; 6] = ["c", "h", "S", "md", "rst", "txt"];

/// The maximum size in bytes of a file that is searched. Scripts are smaller.
const MAX_SCRIPT: u64 = 4 << 20;

/// Returns the release of the running kernel, as printed by `uname -r`. Returns `None` if it cannot
/// be read or is invalid.
#[must_use]
pub fn running_release() -> Option<KernelRelease> {
    fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().parse().ok()
}

/// Returns true if a file in `source` that may be a script or makefile mentions a file of
/// [`RUNNING_KERNEL`].
///
/// Such a script usually compares the target kernel with the output of `uname`, and reads the file
/// only if that kernel is running.
pub(crate) fn reads_running_kernel(source: &Path) -> bool {
    let may_be_script = |path: &Path| {
        let extension = path.extension();
        !NOT_SCRIPTS.iter().any(|it| extension == Some(OsStr::new(it)))
    };
    let names_file = |path: &Path| {
        let text = fs::read(path).unwrap_or_default();
        RUNNING_KERNEL.iter().any(|file| memmem::find(&text, file.as_bytes()).is_some())
    };
    walkdir::WalkDir::new(source).into_iter().flatten().any(|entry| {
        let path = entry.path();
        let is_small = || entry.metadata().is_ok_and(|meta| meta.len() <= MAX_SCRIPT);
        entry.file_type().is_file() && may_be_script(path) && is_small() && names_file(path)
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::script("configure", "map=/proc/kallsyms\n", true)]
    #[case::in_a_directory("tools/config.sh", "zcat /proc/config.gz | grep X\n", true)]
    #[case::not_text("tools/config", "\0\u{ff}/proc/kallsyms", true)]
    #[case::code("foo.c", "filp_open(\"/proc/kallsyms\");\n", false)]
    #[case::documentation("README.md", "needs /proc/kallsyms\n", false)]
    #[case::another_file("configure", "grep MemTotal /proc/meminfo\n", false)]
    fn only_scripts_that_mention_the_files_count(
        #[case] file: &str,
        #[case] text: &str,
        #[case] want: bool,
    ) {
        let source = tempfile::tempdir().unwrap();
        let file = source.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        assert_eq!(reads_running_kernel(source.path()), want);
    }
}

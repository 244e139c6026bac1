//! Finds headers that cannot be used for builds.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Kernel;

/// Headers that cannot be used to build modules for a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadHeaders {
    /// The directory that `--kernelsourcedir` names contains no headers.
    None(PathBuf),
    /// The headers in this directory are for another kernel release, which is the second value.
    OfRelease(PathBuf, String),
}

impl fmt::Display for BadHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(dir) => {
                write!(f, "no kernel headers in {} (--kernelsourcedir)", dir.display())
            }
            Self::OfRelease(dir, release) => {
                write!(f, "the kernel headers in {} are those of {release}", dir.display())
            }
        }
    }
}

impl BadHeaders {
    /// Returns the reason why the headers of `kernel` cannot be used. Returns `None` if they can be
    /// used, or if they are missing and `given` is `None`. `given` is the directory that
    /// `--kernelsourcedir` names, if any.
    pub(super) fn find(kernel: &Kernel, given: Option<&Path>) -> Option<Self> {
        let Some(headers) = &kernel.headers else {
            return given.map(|dir| Self::None(dir.to_owned()));
        };
        let other = releases(headers).find(|release| release != kernel.release.as_str())?;
        Some(Self::OfRelease(headers.clone(), other))
    }
}

/// Returns the kernel releases in two files of the headers in `dir`. kbuild uses `kernel.release`
/// for paths, and `utsrelease.h` for the vermagic of modules.
fn releases(dir: &Path) -> impl Iterator<Item = String> {
    let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let plain = text("include/config/kernel.release").trim().to_owned();
    let header = text("include/generated/utsrelease.h");
    let define = header.lines().find_map(|line| line.trim().strip_prefix("#define UTS_RELEASE"));
    let defined = define.and_then(|value| value.split('"').nth(1)).unwrap_or_default().to_owned();
    [plain, defined].into_iter().filter(|release| !release.is_empty())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;
    use crate::machine::{Kernels, Trees};

    #[rstest]
    #[case::equal(&[], None)]
    #[case::release(&[("config/kernel.release", "6.6.1-lts\n")], Some("6.6.1-lts"))]
    #[case::header(
        &[("generated/utsrelease.h", "/* made */\n#define UTS_RELEASE \"5.15.1-MiSTer\"\n")],
        Some("5.15.1-MiSTer")
    )]
    #[case::undefined(&[("config/kernel.release", ""), ("generated/utsrelease.h", "\n")], None)]
    fn finds_headers_of_another_release(
        #[case] files: &[(&str, &str)],
        #[case] want: Option<&str>,
    ) {
        let root = TestRoot::new();
        root.kernel("7.2").headers();
        for (file, text) in files {
            root.write(format!("usr/lib/modules/7.2/build/include/{file}"), text);
        }
        let kernels = Kernels::read(&Trees::under(root.path())).unwrap();
        let build = root.at("usr/lib/modules/7.2/build");
        let want = want.map(|release| BadHeaders::OfRelease(build, release.to_owned()));
        assert_eq!(BadHeaders::find(&kernels.all[0], None), want);
    }
}

//! The sources and kernels that a transaction changes, parsed from the targets that pacman passes to a hook.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use dkms_engine::failure::Failure;
use dkms_engine::names::KernelRelease;

/// The package that these hooks belong to.
const OURSELVES: &str = "alpm-dkms";

/// The length of the longest path on Linux (`PATH_MAX`). A longer line is not a target.
const LONGEST: usize = 4096;

/// The targets of a transaction that matter to dkms. Only the disk tells whether a path was added, changed or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Directories of `/usr/src` whose own `dkms.conf` is a target. They may be invalid as names of modules, which the
    /// engine reports.
    pub sources: BTreeSet<String>,
    /// Kernels of which a file is a target.
    pub kernels: BTreeSet<KernelRelease>,
    /// Kernels whose headers (`build/include/`) are a target.
    pub headers: BTreeSet<KernelRelease>,
    /// Whether alpm-dkms is a target.
    pub ourselves: bool,
    /// Whether `usr/bin/dkms` is a target. If alpm-dkms is removed, another package then provides it.
    pub dkms_binary: bool,
    /// The number of lines that no trigger of ours matches, which are ignored.
    pub ignored: usize,
}

/// Returns the failure of a hook that cannot read its targets.
pub(crate) fn unreadable(error: &io::Error) -> Failure {
    Failure::new(1, format!("cannot read the targets from pacman: {error}"))
}

impl Targets {
    /// Parses targets, one per line: paths without a leading `/`, or names of packages. Any bytes are valid input.
    ///
    /// # Errors
    /// Only if `input` cannot be read.
    pub fn read(input: &mut dyn BufRead) -> Result<Self, Failure> {
        let mut targets = Self::default();
        for line in input.split(b'\n') {
            let line = line.map_err(|error| unreadable(&error))?;
            let known = line.len() <= LONGEST
                && std::str::from_utf8(&line).is_ok_and(|target| targets.add(target).is_some());
            if !known && !line.is_empty() {
                targets.ignored += 1;
                if targets.ignored <= 3 {
                    let start = &line[..line.len().min(200)];
                    log::warn!("target ignored: {}", start.escape_ascii());
                }
            }
        }
        if targets.ignored > 3 {
            log::warn!("{} targets ignored in total", targets.ignored);
        }
        Ok(targets)
    }

    /// Returns true if no target matters to dkms.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { ignored: self.ignored, ..Self::default() }
    }

    fn add(&mut self, target: &str) -> Option<()> {
        match target {
            OURSELVES => self.ourselves = true,
            "usr/bin/dkms" => self.dkms_binary = true,
            _ => {
                if let Some(path) = target.strip_prefix("usr/src/") {
                    self.sources.insert(source(path)?.to_owned());
                } else {
                    self.add_kernel(target.strip_prefix("usr/lib/modules/")?)?;
                }
            }
        }
        Some(())
    }

    fn add_kernel(&mut self, path: &str) -> Option<()> {
        let (release, below) = path.split_once('/')?;
        let release = release.parse().ok()?;
        match below {
            "" | "modules.order" | "modules.alias" | "pkgbase" | "vmlinuz" => {
                self.kernels.insert(release);
            }
            // `*` of a trigger crosses `/`, and NeedsTargets names whatever matched.
            "build/include/" | "build/include" => {
                self.headers.insert(release);
            }
            _ => return None,
        }
        Some(())
    }
}

/// Returns the lines except for the sources of modules, each terminated by a newline.
#[must_use]
pub fn without_sources(lines: &[u8]) -> Vec<u8> {
    let is_source = |line: &[u8]| {
        let path = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("usr/src/"));
        path.and_then(source).is_some()
    };
    let others =
        lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !is_source(line));
    others.flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

/// Returns the source directory if the path is its top-level `dkms.conf`, and `None` for a deeper one, which libalpm's
/// `usr/src/*/dkms.conf` also matches.
fn source(path: &str) -> Option<&str> {
    let dir = path.strip_suffix("/dkms.conf")?;
    let fits = !dir.is_empty() && dir != ".." && dir != "." && !dir.contains(['/', '\0']);
    fits.then_some(dir)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::{Duration, Instant};

    use rstest::rstest;

    use super::*;

    fn read(lines: impl AsRef<[u8]>) -> Targets {
        Targets::read(&mut lines.as_ref()).expect("memory can be read")
    }

    fn source(dir: &str) -> Targets {
        Targets { sources: [dir.to_owned()].into(), ..Targets::default() }
    }

    fn kernel(release: &str) -> Targets {
        Targets { kernels: [release.parse().expect("a release")].into(), ..Targets::default() }
    }

    fn headers(release: &str) -> Targets {
        Targets { headers: [release.parse().expect("a release")].into(), ..Targets::default() }
    }

    #[rstest]
    #[case::source("usr/src/zfs-2.4.4/dkms.conf", source("zfs-2.4.4"))]
    #[case::no_version("usr/src/zfs/dkms.conf", source("zfs"))]
    #[case::kernel("usr/lib/modules/7.2.13-arch1-1/modules.order", kernel("7.2.13-arch1-1"))]
    #[case::cachyos("usr/lib/modules/7.2.13-2-cachyos/modules.alias", kernel("7.2.13-2-cachyos"))]
    #[case::directory("usr/lib/modules/7.2.13-arch1-1/", kernel("7.2.13-arch1-1"))]
    #[case::headers("usr/lib/modules/7.2.13-arch1-1/build/include/", headers("7.2.13-arch1-1"))]
    #[case::departure("alpm-dkms", Targets { ourselves: true, ..Targets::default() })]
    #[case::the_program("usr/bin/dkms", Targets { dkms_binary: true, ..Targets::default() })]
    fn reads_a_target(#[case] line: &str, #[case] want: Targets) {
        assert_eq!(read(line), want);
    }

    #[rstest]
    #[case::other_path("usr/share/doc/zfs/dkms.conf")]
    #[case::too_deep("usr/src/linux-7.2/drivers/dkms.conf")]
    #[case::too_shallow("usr/src/dkms.conf")]
    #[case::other_file("usr/src/zfs-2.4.4/dkms.conf.in")]
    #[case::up("usr/src/../dkms.conf")]
    #[case::far_up("usr/src/../../etc/dkms.conf")]
    #[case::kernel_up("usr/lib/modules/../modules.order")]
    #[case::hidden("usr/lib/modules/.old/modules.order")]
    #[case::absolute("/usr/src/zfs-2.4.4/dkms.conf")]
    #[case::deep_headers("usr/lib/modules/7.2/build/include/linux/build/include/")]
    #[case::module("usr/lib/modules/7.2/kernel/fs/ext4.ko.zst")]
    #[case::package("linux")]
    #[case::not_utf8(b"usr/src/\xff-1/dkms.conf")]
    #[case::nul(b"usr/src/a\0b-1/dkms.conf")]
    fn ignores_a_target(#[case] line: impl AsRef<[u8]>) {
        let targets = read(line);
        assert!(targets.is_empty());
        assert_eq!(targets.ignored, 1);
    }

    #[test]
    fn reads_nothing_from_nothing() {
        assert_eq!(read(""), Targets::default());
        assert_eq!(read("\n\n"), Targets::default());
    }

    #[test]
    fn takes_a_hundred_thousand_targets() {
        let mut lines = String::new();
        for number in 0..100_000 {
            let _ = writeln!(lines, "usr/src/m-{}/dkms.conf", number % 1000);
        }
        let start = Instant::now();
        assert_eq!(read(lines).sources.len(), 1000);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn takes_a_line_of_many_megabytes() {
        assert_eq!(read(vec![b'x'; 8 << 20]).ignored, 1);
    }

    #[test]
    fn only_modules_of_their_own_are_left_out() {
        let lines = b"usr/lib/firmware/a\nusr/src/zfs-2.4/dkms.conf\nusr/src/a/b/dkms.conf\n\xff\nmkinitcpio";
        let rest = b"usr/lib/firmware/a\nusr/src/a/b/dkms.conf\n\xff\nmkinitcpio\n";
        assert_eq!(without_sources(lines), rest);
        assert!(without_sources(b"usr/src/zfs-2.4/dkms.conf\n").is_empty());
    }
}

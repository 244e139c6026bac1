//! Parses the targets that pacman passes to a hook: the sources and kernels of a transaction.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use dkms_engine::facts::Subjects;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Target;
use dkms_engine::names::KernelRelease;

/// The name of the package that contains these hooks.
const OURSELVES: &str = "alpm-dkms";

/// The directories of the paths that trigger the hooks.
const TREES: [&str; 2] = ["usr/src/", "usr/lib/modules/"];

/// The maximum length of a path on Linux (`PATH_MAX`). A longer line is not a target.
const LONGEST: usize = 4096;

/// The targets of a transaction that concern dkms. pacman does not say whether a path was added,
/// changed or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// The directories in `/usr/src` whose top-level `dkms.conf` is a target. A name may be invalid
    /// as a module id; the engine reports such names.
    pub sources: BTreeSet<String>,
    /// The kernels with at least one of their own files among the targets.
    pub kernels: BTreeSet<KernelRelease>,
    /// The kernels whose headers (`build/include/`, or the link `build`) are among the targets.
    pub headers: BTreeSet<KernelRelease>,
    /// The targets that belong to the sources, kernels and headers in the other fields.
    pub paths: BTreeSet<String>,
    /// Whether the package alpm-dkms is a target.
    pub ourselves: bool,
    /// Whether `usr/bin/dkms` is a target. If the transaction removes alpm-dkms, this means that
    /// another package will provide that file.
    pub dkms_binary: bool,
    /// The number of lines that were ignored because they match none of our triggers.
    pub ignored: usize,
}

/// Returns the failure of a hook that cannot read its targets.
pub(crate) fn unreadable(error: &io::Error) -> Failure {
    Failure::new(1, format!("cannot read the targets from pacman: {error}"))
}

impl Targets {
    /// Parses targets, one per line: paths without a leading `/`, or names of packages. Any bytes
    /// are valid input.
    ///
    /// # Errors
    /// [`Failure`] if `input` cannot be read.
    pub fn read(input: &mut dyn BufRead) -> Result<Self, Failure> {
        let mut targets = Self::default();
        let (mut first, mut others) = (None, 0_usize);
        for line in input.split(b'\n') {
            let line = line.map_err(|error| unreadable(&error))?;
            let known = line.len() <= LONGEST
                && std::str::from_utf8(&line).is_ok_and(|target| targets.add(target).is_some());
            if !known && !line.is_empty() {
                targets.ignored += 1;
                // The `*` of a trigger also matches `/`, so such paths are common.
                let is_usual = TREES.iter().any(|tree| line.starts_with(tree.as_bytes()));
                match first {
                    _ if is_usual => {}
                    Some(_) => others += 1,
                    None => first = Some(line[..line.len().min(200)].escape_ascii().to_string()),
                }
            }
        }
        if let Some(first) = first {
            let others = match others {
                0 => String::new(),
                1 => " (and 1 other target)".into(),
                count => format!(" (and {count} other targets)"),
            };
            log::warn!("{first}: target ignored: matches no trigger of alpm-dkms{others}");
        }
        Ok(targets)
    }

    /// Returns true if no target concerns dkms.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { ignored: self.ignored, ..Self::default() }
    }

    /// Returns the sources and kernels among the targets.
    #[must_use]
    pub fn subjects(&self) -> Subjects {
        Subjects { sources: self.sources.clone(), kernels: &self.kernels | &self.headers }
    }

    fn add(&mut self, target: &str) -> Option<()> {
        match target {
            OURSELVES => self.ourselves = true,
            "usr/bin/dkms" => self.dkms_binary = true,
            path => {
                match Target::parse(path)? {
                    Target::Source(dir) => drop(self.sources.insert(dir)),
                    Target::Kernel(release) => drop(self.kernels.insert(release)),
                    Target::Headers(release) => drop(self.headers.insert(release)),
                }
                self.paths.insert(path.to_owned());
            }
        }
        Some(())
    }
}

/// Returns pacman's targets in `lines` without the module sources. Each returned line ends with a
/// newline.
#[must_use]
pub fn without_sources(lines: &[u8]) -> Vec<u8> {
    let is_source = |line: &[u8]| {
        let target = std::str::from_utf8(line).ok().and_then(Target::parse);
        matches!(target, Some(Target::Source(_)))
    };
    let others =
        lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !is_source(line));
    others.flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
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

    /// Adds `line` to the paths of `targets`, unless `line` names a package or our program.
    fn with_path(targets: Targets, line: &str) -> Targets {
        let is_path = !targets.ourselves && !targets.dkms_binary;
        let paths = is_path.then(|| line.to_owned()).into_iter().collect();
        Targets { paths, ..targets }
    }

    #[rstest]
    #[case::source("usr/src/zfs-2.4.4/dkms.conf", source("zfs-2.4.4"))]
    #[case::no_version("usr/src/zfs/dkms.conf", source("zfs"))]
    #[case::kernel("usr/lib/modules/7.2.13-arch1-1/modules.order", kernel("7.2.13-arch1-1"))]
    #[case::cachyos("usr/lib/modules/7.2.13-2-cachyos/modules.alias", kernel("7.2.13-2-cachyos"))]
    #[case::directory("usr/lib/modules/7.2.13-arch1-1/", kernel("7.2.13-arch1-1"))]
    #[case::headers("usr/lib/modules/7.2.13-arch1-1/build/include/", headers("7.2.13-arch1-1"))]
    #[case::linked_headers("usr/lib/modules/7.2.13-arch1-1/build", headers("7.2.13-arch1-1"))]
    #[case::ourselves("alpm-dkms", Targets { ourselves: true, ..Targets::default() })]
    #[case::dkms_binary("usr/bin/dkms", Targets { dkms_binary: true, ..Targets::default() })]
    fn reads_a_target(#[case] line: &str, #[case] want: Targets) {
        assert_eq!(read(line), with_path(want, line));
    }

    #[rstest]
    #[case::other_path("usr/share/doc/zfs/dkms.conf")]
    #[case::too_deep("usr/src/linux-7.2/drivers/dkms.conf")]
    #[case::too_shallow("usr/src/dkms.conf")]
    #[case::other_file("usr/src/zfs-2.4.4/dkms.conf.in")]
    #[case::parent("usr/src/../dkms.conf")]
    #[case::outside("usr/src/../../etc/dkms.conf")]
    #[case::kernel_parent("usr/lib/modules/../modules.order")]
    #[case::hidden("usr/lib/modules/.old/modules.order")]
    #[case::absolute("/usr/src/zfs-2.4.4/dkms.conf")]
    #[case::deep_link("usr/lib/modules/7.2/kernel/build")]
    #[case::deep_headers("usr/lib/modules/7.2/build/include/linux/build/include/")]
    #[case::module("usr/lib/modules/7.2/kernel/fs/ext4.ko.zst")]
    #[case::package("linux")]
    #[case::not_utf8(b"usr/src/\xff-1/dkms.conf")]
    #[case::nul(b"usr/src/a\0b-1/dkms.conf")]
    fn ignores_an_irrelevant_line(#[case] line: impl AsRef<[u8]>) {
        let targets = read(line);
        assert!(targets.is_empty());
        assert_eq!(targets.ignored, 1);
    }

    #[test]
    fn accepts_empty_input() {
        assert_eq!(read(""), Targets::default());
        assert_eq!(read("\n\n"), Targets::default());
    }

    #[test]
    fn reads_a_hundred_thousand_targets() {
        let mut lines = String::new();
        for number in 0..100_000 {
            let _ = writeln!(lines, "usr/src/m-{}/dkms.conf", number % 1000);
        }
        let start = Instant::now();
        assert_eq!(read(lines).sources.len(), 1000);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn ignores_a_line_of_many_megabytes() {
        assert_eq!(read(vec![b'x'; 8 << 20]).ignored, 1);
    }

    #[test]
    fn removes_only_module_sources() {
        let lines = b"usr/lib/firmware/a\nusr/src/zfs-2.4/dkms.conf\nusr/src/a/b/dkms.conf\n\xff\nmkinitcpio";
        let rest = b"usr/lib/firmware/a\nusr/src/a/b/dkms.conf\n\xff\nmkinitcpio\n";
        assert_eq!(without_sources(lines), rest);
        assert!(without_sources(b"usr/src/zfs-2.4/dkms.conf\n").is_empty());
    }
}

//! What changed, read from the target lines that pacman hands a hook.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use dkms_engine::names::KernelRelease;

/// The package that these hooks are from.
const OURSELVES: &str = "alpm-dkms";

/// More than any path on Linux has (`PATH_MAX`); a longer line is no target.
const LONGEST: usize = 4096;

/// What a transaction changed, as far as DKMS is concerned. Nothing tells a hook whether a path
/// came, changed or went: look at the disk for that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Directories of `/usr/src` whose own `dkms.conf` is named. They need not be fit to be
    /// module names: the engine says what is wrong with them.
    pub sources: BTreeSet<String>,
    /// Kernels that are named by a file of their own.
    pub kernels: BTreeSet<KernelRelease>,
    /// Kernels whose headers (`build/include/`) are named.
    pub headers: BTreeSet<KernelRelease>,
    /// Our own package is a target.
    pub ourselves: bool,
    /// `usr/bin/dkms` is a target: with [`Change::ourselves`] on our departure, a package that
    /// provides it (`dkms`) takes our place.
    pub dkms_binary: bool,
    /// Lines that no trigger of ours asks for. They are counted and otherwise ignored.
    pub ignored: usize,
}

impl Change {
    /// Reads target lines: paths without a leading `/`, or names of packages. Any bytes will do.
    ///
    /// # Errors
    /// Only if `input` cannot be read.
    pub fn read(input: &mut dyn BufRead) -> io::Result<Self> {
        let mut change = Self::default();
        for line in input.split(b'\n') {
            let line = line?;
            let known = line.len() <= LONGEST
                && std::str::from_utf8(&line).is_ok_and(|target| change.note(target).is_some());
            if !known && !line.is_empty() {
                change.ignored += 1;
                if change.ignored <= 3 {
                    let start = &line[..line.len().min(200)];
                    log::warn!("target ignored: {}", start.escape_ascii());
                }
            }
        }
        if change.ignored > 3 {
            log::warn!("{} targets ignored in all", change.ignored);
        }
        Ok(change)
    }

    /// Whether no target was one of ours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { ignored: self.ignored, ..Self::default() }
    }

    fn note(&mut self, target: &str) -> Option<()> {
        match target {
            OURSELVES => self.ourselves = true,
            "usr/bin/dkms" => self.dkms_binary = true,
            _ => {
                if let Some(path) = target.strip_prefix("usr/src/") {
                    self.sources.insert(source(path)?.to_owned());
                } else {
                    self.note_kernel(target.strip_prefix("usr/lib/modules/")?)?;
                }
            }
        }
        Some(())
    }

    fn note_kernel(&mut self, path: &str) -> Option<()> {
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

/// The lines that are not about a module's source, each ended by a newline.
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

/// The directory whose own `dkms.conf` the path is; not one that lies deeper, which libalpm's
/// `usr/src/*/dkms.conf` matches as well.
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

    fn read(lines: impl AsRef<[u8]>) -> Change {
        Change::read(&mut lines.as_ref()).expect("memory can be read")
    }

    fn source(dir: &str) -> Change {
        Change { sources: [dir.to_owned()].into(), ..Change::default() }
    }

    fn kernel(release: &str) -> Change {
        Change { kernels: [release.parse().expect("a release")].into(), ..Change::default() }
    }

    fn headers(release: &str) -> Change {
        Change { headers: [release.parse().expect("a release")].into(), ..Change::default() }
    }

    #[rstest]
    #[case::source("usr/src/zfs-2.4.4/dkms.conf", source("zfs-2.4.4"))]
    #[case::no_version("usr/src/zfs/dkms.conf", source("zfs"))]
    #[case::kernel("usr/lib/modules/7.2.13-arch1-1/modules.order", kernel("7.2.13-arch1-1"))]
    #[case::cachyos("usr/lib/modules/7.2.13-2-cachyos/modules.alias", kernel("7.2.13-2-cachyos"))]
    #[case::directory("usr/lib/modules/7.2.13-arch1-1/", kernel("7.2.13-arch1-1"))]
    #[case::headers("usr/lib/modules/7.2.13-arch1-1/build/include/", headers("7.2.13-arch1-1"))]
    #[case::departure("alpm-dkms", Change { ourselves: true, ..Change::default() })]
    #[case::the_program("usr/bin/dkms", Change { dkms_binary: true, ..Change::default() })]
    fn reads_a_target(#[case] line: &str, #[case] want: Change) {
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
        let change = read(line);
        assert!(change.is_empty());
        assert_eq!(change.ignored, 1);
    }

    #[test]
    fn reads_nothing_from_nothing() {
        assert_eq!(read(""), Change::default());
        assert_eq!(read("\n\n"), Change::default());
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

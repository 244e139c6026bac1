//! Recognises the paths in packages that concern dkms.

use crate::names::KernelRelease;

/// The part of the machine to which a path of a package belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The name of a directory in `/usr/src`. The path is that of the `dkms.conf` in this
    /// directory. The name may be invalid as a module id.
    Source(String),
    /// A kernel. The path is that of one of its own files.
    Kernel(KernelRelease),
    /// A kernel. The path is that of its headers: `build/include/`, or the link `build`.
    Headers(KernelRelease),
}

impl Target {
    /// Parses a path without a leading `/`, as pacman writes it. Returns `None` for any other path.
    ///
    /// The `*` in a trigger of a hook also matches `/`, so pacman passes deeper paths too.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        if let Some(path) = path.strip_prefix("usr/src/") {
            let dir = path.strip_suffix("/dkms.conf")?;
            let fits = !dir.is_empty() && dir != ".." && dir != "." && !dir.contains(['/', '\0']);
            return fits.then(|| Self::Source(dir.to_owned()));
        }
        let (release, below) = path.strip_prefix("usr/lib/modules/")?.split_once('/')?;
        let release = release.parse().ok()?;
        match below {
            "" | "modules.order" | "modules.alias" | "pkgbase" | "vmlinuz" => {
                Some(Self::Kernel(release))
            }
            // A headers package may contain `build` as a link.
            "build/include/" | "build/include" | "build" => Some(Self::Headers(release)),
            _ => None,
        }
    }
}

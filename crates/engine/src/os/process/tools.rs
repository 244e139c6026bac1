//! The paths of the programs that the engine runs; tests replace them by small scripts.

use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use super::environment::FIXED_PATH;
use super::stop::Stop;

/// The programs that the engine calls by itself, each as the path it is started by.
///
/// The default is where they stand in the fixed PATH of a hook (`/usr/bin`, `/usr/sbin`, …), also
/// on the command line: the user's PATH decides what a *build* runs, not what the engine runs. A
/// program that is in none of these directories keeps its plain name and is looked up in the
/// child's own PATH.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the program of that name")]
pub struct Tools {
    pub bash: PathBuf,
    pub depmod: PathBuf,
    pub strip: PathBuf,
    pub llvm_strip: PathBuf,
    pub zstd: PathBuf,
    pub xz: PathBuf,
    pub gzip: PathBuf,
    pub tar: PathBuf,
    pub setpriv: PathBuf,
    pub unshare: PathBuf,
    pub mount: PathBuf,
    pub openssl: PathBuf,
    pub modprobe: PathBuf,
    pub systemctl: PathBuf,
    /// Ours, by its path on the machine that we run on.
    pub compile_once: PathBuf,
    /// Red Hat's, by its path on the machine that is worked on.
    pub weak_modules: PathBuf,
    /// SUSE's, likewise.
    pub weak_modules2: PathBuf,
    /// How a child can be bound to our own life here; probed at the first need.
    pub confinement: Confinement,
    /// The request to end this run, and with it every confined child.
    pub stop: Stop,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            bash: in_fixed_path("bash"),
            depmod: in_fixed_path("depmod"),
            strip: in_fixed_path("strip"),
            llvm_strip: in_fixed_path("llvm-strip"),
            zstd: in_fixed_path("zstd"),
            xz: in_fixed_path("xz"),
            gzip: in_fixed_path("gzip"),
            tar: in_fixed_path("tar"),
            setpriv: in_fixed_path("setpriv"),
            unshare: in_fixed_path("unshare"),
            mount: in_fixed_path("mount"),
            openssl: in_fixed_path("openssl"),
            modprobe: in_fixed_path("modprobe"),
            systemctl: in_fixed_path("systemctl"),
            compile_once: "/usr/lib/alpm-dkms/compile-once".into(),
            weak_modules: "/usr/sbin/weak-modules".into(),
            weak_modules2: "/usr/lib/module-init-tools/weak-modules2".into(),
            confinement: Confinement::default(),
            stop: Stop::default(),
        }
    }
}

fn in_fixed_path(name: &str) -> PathBuf {
    FIXED_PATH
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_keeps_its_plain_name() {
        assert_eq!(in_fixed_path("no-such-program"), Path::new("no-such-program"));
        assert!(Tools::default().bash.is_absolute());
    }
}

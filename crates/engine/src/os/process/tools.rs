//! Paths of the programs that the engine runs; tests replace them with small scripts.

use std::env;
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use super::environment::{FIXED_PATH, is_program};
use super::stop::Stop;

/// The programs that the engine itself runs.
///
/// By default, each program is looked up in the fixed PATH of a hook (`/usr/bin`, `/usr/sbin`, …),
/// even on the command line, where the user's PATH affects only builds. A program that is in none
/// of these directories keeps its plain name, which is looked up in the child's PATH.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "most fields are the path of the program of that name")]
pub struct Tools {
    pub bash: PathBuf,
    pub depmod: PathBuf,
    pub strip: PathBuf,
    pub llvm_strip: PathBuf,
    pub zstd: PathBuf,
    pub xz: PathBuf,
    pub gzip: PathBuf,
    pub tar: PathBuf,
    pub openssl: PathBuf,
    pub modprobe: PathBuf,
    pub systemctl: PathBuf,
    /// The path of alpm-dkms's program that confines child processes and wraps `make` and `uname`.
    /// The path does not depend on the root directory.
    pub confine: PathBuf,
    /// The path of alpm-dkms's compiler wrapper. The path does not depend on the root directory.
    pub compile_once: PathBuf,
    /// The path of Red Hat's `weak-modules`, relative to the root directory.
    pub weak_modules: PathBuf,
    /// The path of SUSE's `weak-modules2`, relative to the root directory.
    pub weak_modules2: PathBuf,
    /// The confinement of child processes that this machine supports.
    pub confinement: Confinement,
    /// The request to end this run, which also ends its confined children.
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
            openssl: in_fixed_path("openssl"),
            modprobe: in_fixed_path("modprobe"),
            systemctl: in_fixed_path("systemctl"),
            confine: confine(),
            compile_once: "/usr/lib/alpm-dkms/compile-once".into(),
            weak_modules: "/usr/sbin/weak-modules".into(),
            weak_modules2: "/usr/lib/module-init-tools/weak-modules2".into(),
            confinement: Confinement::default(),
            stop: Stop::default(),
        }
    }
}

/// Returns the path of `dkms-confine`. If cargo built the running program, `dkms-confine` is in the
/// same directory or, for a test, in the directory above.
fn confine() -> PathBuf {
    let this = env::current_exe().unwrap_or_default();
    let mut near = this.ancestors().skip(1).take(2).map(|dir| dir.join("dkms-confine"));
    near.find(|path| is_program(path)).unwrap_or("/usr/lib/alpm-dkms/dkms-confine".into())
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
    fn a_missing_program_keeps_its_plain_name() {
        assert_eq!(in_fixed_path("no-such-program"), Path::new("no-such-program"));
        assert!(Tools::default().bash.is_absolute());
    }

    #[test]
    fn tests_find_the_program_that_confines() {
        let program = Tools::default().confine;
        assert!(program.exists(), "{}: run: cargo build -p dkms-confine", program.display());
    }
}

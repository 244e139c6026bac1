//! Finds the compilers in PATH.

pub(crate) mod compile_once;
pub(crate) mod launcher;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::os::process::{Environment, is_program};

/// The names of compilers, without the prefix and the version that a name such as
/// `x86_64-linux-gnu-gcc-16` contains.
const COMPILERS: [&str; 6] = ["cc", "c++", "gcc", "g++", "clang", "clang++"];

/// Launchers that are also installed under the names of compilers, as symbolic links. Such a link
/// is not a compiler.
const LAUNCHERS: [&str; 4] = ["ccache", "sccache", "distcc", "icecc"];

/// Returns the compilers in PATH. Maps the name of each compiler to the first path with that name.
pub(crate) fn compilers(env: &Environment) -> BTreeMap<String, PathBuf> {
    let mut compilers = BTreeMap::new();
    for dir in search_path(env) {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_compiler(&name) && is_program(&entry.path()) && !is_launcher(&entry.path()) {
                compilers.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    compilers
}

fn search_path(env: &Environment) -> Vec<PathBuf> {
    env.get("PATH").map(|path| env::split_paths(path).collect()).unwrap_or_default()
}

fn is_compiler(name: &str) -> bool {
    let is_version = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let plain = match name.rsplit_once('-') {
        Some((plain, version)) if is_version(version) => plain,
        _ => name,
    };
    plain.rsplit('-').next().is_some_and(|last| COMPILERS.contains(&last))
}

fn is_launcher(path: &Path) -> bool {
    let real = path.canonicalize().unwrap_or_default();
    real.file_name().is_some_and(|name| LAUNCHERS.iter().any(|launcher| name == *launcher))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("gcc", true)]
    #[case("cc", true)]
    #[case("g++-16", true)]
    #[case("x86_64-pc-linux-gnu-gcc-16.2.1", true)]
    #[case("clang++", true)]
    #[case("gcc-ar", false)]
    #[case("gcc-nm-16", false)]
    #[case("clang-format", false)]
    #[case("c99", false)]
    #[case("ccache", false)]
    #[case("cpp", false)]
    fn recognises_compilers_by_name(#[case] name: &str, #[case] is: bool) {
        assert_eq!(is_compiler(name), is);
    }
}

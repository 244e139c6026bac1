//! Compares the compiler of a kernel with the one that builds modules for it.

use std::sync::LazyLock;

use regex::Regex;

use crate::building::compiler_version;
use crate::machine::{Kernel, Machine};

/// Describes the difference between the compiler that built `kernel` and the one that builds
/// modules for it. Returns `None` if their versions are the same, or if one of the versions is
/// unknown.
pub(super) fn difference(machine: &Machine, kernel: &Kernel) -> Option<String> {
    let config = machine.kernel_config(kernel)?;
    let built_with = config.value("CONFIG_CC_VERSION_TEXT")?;
    // The kernel's Makefile sets CC and ignores the CC of the environment.
    let name = if config.is_clang() { "clang" } else { "gcc" };
    let Some(path) = machine.env.find(name) else {
        return Some(format!("the kernel was built with {built_with}; {name} is not installed"));
    };
    let found = compiler_version(machine, &machine.env.clone().with("CC", path.clone()));
    let differs = version(built_with)? != version(&found)?;
    differs.then(|| {
        format!(
            "the kernel was built with {built_with}; the first {name} in PATH is {} ({found})",
            path.display()
        )
    })
}

/// Parses the first line that a compiler prints for `--version`. Returns whether the compiler is
/// clang, and its version. Distributions put different text between the name and the version.
fn version(line: &str) -> Option<(bool, &str)> {
    static VERSION: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?:clang version |\) )(\d+(?:\.\d+)+)").ok());
    let found = VERSION.as_ref()?.captures(line)?.get(1)?;
    Some((line.contains("clang"), found.as_str()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::arch("gcc (GCC) 16.1.1 20260630", Some((false, "16.1.1")))]
    #[case::debian("x86_64-linux-gnu-gcc-16 (Debian 16.2.0-3) 16.2.0", Some((false, "16.2.0")))]
    #[case::clang("clang version 20.1.8", Some((true, "20.1.8")))]
    #[case::debian_clang("Debian clang version 19.1.7 (3)", Some((true, "19.1.7")))]
    #[case::tiny("tcc version 0.9.27 (x86_64 Linux)", None)]
    #[case::nothing("", None)]
    fn reads_the_version_of_a_compiler(#[case] line: &str, #[case] want: Option<(bool, &str)>) {
        assert_eq!(version(line), want);
    }
}

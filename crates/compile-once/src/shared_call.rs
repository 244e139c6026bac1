//! Recognises compiler probes, whose result is the same for every module of a kernel.
//!
//! For every module, kbuild compiles `/dev/null` some twenty times to find out whether the compiler
//! supports an option (`scripts/Makefile.compiler`). Only these calls are shared, and only if their
//! arguments are known to affect nothing but the object.

use std::path::{Path, PathBuf};

use crate::arguments::{self, Arguments};

/// A compiler call whose result is the same for every module of a kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SharedCall {
    /// The arguments that affect the result.
    arguments: Vec<String>,
    /// The object file that the compiler writes.
    pub(crate) object: PathBuf,
}

impl SharedCall {
    /// Returns the shared call with these arguments, or `None` if the result of a call with them
    /// could depend on the module.
    pub(crate) fn of(arguments: &Arguments) -> Option<Self> {
        let Arguments { makes, source, object, dependencies, .. } = arguments;
        if source != "/dev/null" || arguments.paths().next().is_some() || dependencies.is_some() {
            return None;
        }
        let mut words: Vec<String> = arguments.words().map(str::to_owned).collect();
        words.push(makes.clone());
        Some(Self { arguments: words, object: object.into() })
    }

    /// Returns the cache key of this call (see [`arguments::key`]).
    ///
    /// The working directory is not part of the key: it affects only the debug symbols of the
    /// object, and kbuild deletes the objects of probes.
    pub(crate) fn key(&self, compiler: &Path) -> Option<String> {
        arguments::key(compiler, self.arguments.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use rstest::rstest;

    use super::*;

    fn read(line: &str) -> Option<SharedCall> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        SharedCall::of(&Arguments::read(&words)?)
    }

    #[rstest]
    #[case::option(
        "-Werror -D__KERNEL__ -std=gnu11 -O2 -falign-jumps=1 -c -x c /dev/null -o .tmp_1/tmp"
    )]
    #[case::assembly("-fstack-protector -S -x c /dev/null -o .tmp_1/tmp")]
    #[case::words("-D A=b --param x=1 -U C -pg -m64 -c -x c /dev/null -o t")]
    fn recognises_shared_calls(#[case] line: &str) {
        assert!(read(line).is_some());
    }

    #[rstest]
    #[case::own_file("-c -o a.o a.c")]
    #[case::common("-c -o c.o /h/scripts/module-common.c")]
    #[case::two_files("-c -x c /dev/null a.c -o t")]
    #[case::two_objects("-c -x c /dev/null -o t -o u")]
    #[case::input("-c -x c - -o t")]
    #[case::no_object("-c -x c /dev/null")]
    #[case::object_missing("-c -x c /dev/null -o")]
    #[case::links("-x c /dev/null -o t")]
    #[case::preprocesses("-E -x c /dev/null -o t")]
    #[case::includes("-include config.h -c -x c /dev/null -o t")]
    #[case::headers("-I/usr/include -c -x c /dev/null -o t")]
    #[case::dependencies("-Wp,-MMD,t.d -c -x c /dev/null -o t")]
    #[case::plugin("-fplugin=./p.so -c -x c /dev/null -o t")]
    #[case::further_file("-gsplit-dwarf -c -x c /dev/null -o t")]
    #[case::statistics("-fstack-usage -c -x c /dev/null -o t")]
    #[case::assembler("-Wa,-al=list -c -x c /dev/null -o t")]
    #[case::other_dependencies("-MD -MF t.d -c -x c /dev/null -o t")]
    #[case::response_file("@options -c -x c /dev/null -o t")]
    #[case::unknown("-specs=x -c -x c /dev/null -o t")]
    #[case::prints_a_path("-print-file-name=include -c -x c /dev/null -o t")]
    #[case::version("--version")]
    #[case::nothing("")]
    fn rejects_other_calls(#[case] line: &str) {
        assert_eq!(read(line), None);
    }

    #[test]
    fn the_key_covers_everything_that_affects_the_result() {
        let gcc = Path::new("/usr/bin/gcc");
        let key = |line: &str, compiler| read(line).unwrap().key(compiler).unwrap();
        let option = key("-O2 -c -x c /dev/null -o .tmp_1/tmp", gcc);
        assert_eq!(key("-O2 -c -x c /dev/null -o .tmp_2/tmp", gcc), option);
        assert_ne!(key("-O3 -c -x c /dev/null -o .tmp_1/tmp", gcc), option);
        assert_ne!(key("-O2 -S -x c /dev/null -o .tmp_1/tmp", gcc), option);
        assert_ne!(key("-O2 -c -x c /dev/null -o t", Path::new("/usr/bin/clang")), option);
    }
}

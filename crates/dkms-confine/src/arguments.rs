//! The command line with which the engine calls this program.

use std::ffi::OsString;
use std::path::PathBuf;

/// The program to run, and how to confine it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `--parent PID`: the process that must still be the parent of this one. With `--first`, PID
    /// is the parent's pid in the pid namespace of /proc.
    pub(crate) parent: Option<i32>,
    /// `--pid-namespace`: the program runs in a pid namespace.
    pub(crate) pid_namespace: bool,
    /// `--own-mounts`: the program runs in a mount namespace, with its own /proc.
    pub(crate) own_mounts: bool,
    /// `--bind FROM AT`: the file or directory `FROM` to mount over `AT`.
    pub(crate) binds: Vec<(PathBuf, PathBuf)>,
    /// `--mask PATH`: a file that appears empty.
    pub(crate) masked: Vec<PathBuf>,
    /// `--cwd DIR`: the working directory, to be entered after mounting.
    pub(crate) cwd: Option<PathBuf>,
    /// `--first`: this process is the first one in the new namespaces.
    pub(crate) is_first: bool,
    /// The program.
    pub(crate) program: PathBuf,
    /// The arguments of the program.
    pub(crate) words: Vec<OsString>,
}

impl Arguments {
    /// Reads the words of a command line: options, `--`, the program and its arguments. Returns
    /// `None` if they do not have this form.
    pub(crate) fn read(words: Vec<OsString>) -> Option<Self> {
        let mut read = Self::default();
        let mut words = words.into_iter();
        loop {
            let option = words.next()?;
            let mut path = || words.next().map(PathBuf::from);
            match option.to_str()? {
                "--parent" => read.parent = Some(words.next()?.to_str()?.parse().ok()?),
                "--pid-namespace" => read.pid_namespace = true,
                "--own-mounts" => read.own_mounts = true,
                "--bind" => read.binds.push((path()?, path()?)),
                "--mask" => read.masked.push(path()?),
                "--cwd" => read.cwd = Some(path()?),
                "--first" => read.is_first = true,
                "--" => break,
                _ => return None,
            }
        }
        read.program = words.next()?.into();
        read.words = words.collect();
        Some(read)
    }

    /// Returns the words that call this program again as the first process of the namespaces.
    /// `parent` is the pid of this process in the pid namespace of /proc.
    pub(crate) fn of_first_process(&self, parent: Option<i32>) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--first".into()];
        if let Some(parent) = parent {
            words.extend(["--parent".into(), parent.to_string().into()]);
        }
        if self.own_mounts {
            words.push("--own-mounts".into());
        }
        for file in &self.masked {
            words.extend(["--mask".into(), file.into()]);
        }
        if let Some(dir) = &self.cwd {
            words.extend(["--cwd".into(), dir.into()]);
        }
        words.extend(["--".into(), self.program.clone().into()]);
        words.extend(self.words.iter().cloned());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_first_process_gets_the_remaining_options() {
        let line =
            "--parent 7 --pid-namespace --own-mounts --bind /a /b --mask /m --cwd /c -- x --bind";
        let read = Arguments::read(words(line)).unwrap();
        assert_eq!((read.parent, read.pid_namespace), (Some(7), true));
        assert_eq!(read.binds, [("/a".into(), "/b".into())]);
        let again = Arguments::read(read.of_first_process(Some(9))).unwrap();
        assert!(again.is_first && again.own_mounts && again.binds.is_empty());
        assert_eq!((again.parent, again.masked, again.cwd), (Some(9), read.masked, read.cwd));
        assert_eq!((again.program, again.words), ("x".into(), words("--bind")));
    }

    #[test]
    fn refuses_other_command_lines() {
        for line in ["", "x", "--", "--parent x -- y", "--bind /a", "--verbose -- x"] {
            assert_eq!(Arguments::read(words(line)), None, "{line}");
        }
    }
}

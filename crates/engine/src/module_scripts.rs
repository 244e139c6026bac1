//! Runs the scripts that a module's conf names, such as PRE_BUILD and POST_INSTALL.

use std::path::PathBuf;

use crate::conf::known_directives;
use crate::dkms_tree::Workplace;
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};
use crate::os::process::{Environment, How, Output, Program, SIGNALLED, is_program};

/// A script of a module, named by a directive of its conf.
pub(crate) struct Script<'a> {
    /// The directive that names the script, such as `POST_INSTALL`.
    pub directive: &'static str,
    /// The value of the directive: a file name and arguments. [`words`] splits it.
    pub value: &'a str,
    /// The directory of the script, which is also its working directory.
    pub place: Workplace,
}

impl<'a> Script<'a> {
    /// Returns the program that runs the script, with the environment `env`. Returns `None` if no
    /// executable file has the script's name. dkms does not treat this as a failure.
    ///
    /// An executable file with the same name in `/etc/dkms/M` replaces the module's script, and is
    /// started in that directory (dkms-behaviour 4.6).
    pub(crate) fn program<'e>(
        &self,
        machine: &'e Machine,
        id: &ModuleId,
        env: &'e Environment,
    ) -> Option<Program<'e>> {
        let mut words = words(self.value).into_iter();
        let file = words.next()?;
        let dir = self.dir(machine, id)?;
        let program = Program::new(dir.join(file), env)
            .args(words)
            .cwd(dir)
            .deadline(machine.settings.build_timeout())
            .confined(&machine.tools);
        Some(self.place.show(program))
    }

    /// Returns true if there is an executable file with the script's name.
    pub(crate) fn exists(&self, machine: &Machine, id: &ModuleId) -> bool {
        self.dir(machine, id).is_some()
    }

    /// Returns the script's directory, as a path that is valid where the script runs. Returns
    /// `None` if the script does not exist or is not executable.
    fn dir(&self, machine: &Machine, id: &ModuleId) -> Option<PathBuf> {
        let file = words(self.value).into_iter().next()?;
        let dirs = [Workplace::open(machine.trees.etc.join(&id.name)), self.place.clone()];
        dirs.into_iter().find(|dir| is_program(&dir.real.join(&file))).map(|dir| dir.seen)
    }

    /// Returns the shell command that starts the script, as dkms writes it to a log.
    pub(crate) fn command(&self, machine: &Machine, id: &ModuleId) -> String {
        let dir = self.dir(machine, id).unwrap_or_else(|| self.place.seen.clone());
        format!("cd {0}/ && {0}/{1}", dir.display(), words(self.value).join(" "))
    }

    /// Returns the warning for a script that does not exist or is not executable.
    pub(crate) fn missing(&self, id: &ModuleId) -> String {
        format!(
            "{id}: {} script skipped: {:?} is not an executable file in {}",
            self.directive,
            self.value,
            self.place.seen.display()
        )
    }

    /// Runs the script and collects its output. A missing script only adds a warning to the output.
    pub(crate) fn run(&self, machine: &Machine, id: &ModuleId, kernel: &KernelRelease) -> Ran {
        let env = environment(machine, id, kernel);
        let Some(program) = self.program(machine, id, &env) else {
            return Ran { said: vec![self.missing(id)], status: 0, cut_short: false };
        };
        let mut said = Vec::new();
        let (mut status, mut cut_short) = (1, false);
        let mut keep = |line: &str| said.push(format!("{id}: {line}"));
        match program.output(Output::Lines(&mut keep)).run() {
            Ok(ended) if ended.success() => status = 0,
            Ok(ended) => {
                status = exit_status(ended.how);
                cut_short = ended.how == How::Interrupted;
                said.push(format!(
                    "{id}: {} script failed ({}): {}",
                    self.directive, ended.how, self.value
                ));
            }
            Err(error) => said.push(format!("{id}: {} script: {error}", self.directive)),
        }
        Ran { said, status, cut_short }
    }
}

/// Splits a value into words at blanks, but not at blanks between two double quotes. Removes each
/// pair of double quotes, but keeps an unpaired one.
///
/// dkms evaluates each value a second time inside double quotes, so that the value's own quotes
/// disappear: `--host=""` in the conf of zfs becomes `--host=`.
pub(crate) fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut rest) = (None::<String>, value);
    while let Some(c) = rest.chars().next() {
        rest = rest.strip_prefix(c).unwrap_or_default();
        if c == '"'
            && let Some((quoted, after)) = rest.split_once('"')
        {
            if !quoted.is_empty() {
                word.get_or_insert_default().push_str(quoted);
            }
            rest = after;
        } else if c.is_ascii_whitespace() {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(c);
        }
    }
    words.extend(word);
    words
}

/// The result of running a script.
pub(crate) struct Ran {
    /// The output of the script, one element per line, and a message if the script failed.
    pub said: Vec<String>,
    /// The exit status that a dkms command passes on. It is 0 if the script does not exist.
    pub status: u8,
    /// Whether a signal to this process interrupted the script.
    pub cut_short: bool,
}

/// Returns the exit status of a script as a shell sees it, or 1 if it timed out or was interrupted.
pub(crate) fn exit_status(how: How) -> u8 {
    match how {
        How::Exited(code) => u8::try_from(code).unwrap_or(1),
        How::Killed(signal) => u8::try_from(SIGNALLED + signal).unwrap_or(1),
        How::TimedOut | How::Interrupted => 1,
    }
}

/// Returns the environment of make and scripts, which is the same as in dkms. It includes the
/// directives on the command line (dkms-behaviour 1.3).
pub(crate) fn environment(machine: &Machine, id: &ModuleId, kernel: &KernelRelease) -> Environment {
    known_directives(&machine.options)
        .fold(machine.env.clone(), |env, (name, text)| env.with(name, text))
        .with(crate::machine::WITHIN_RUN, "1")
        .with("module", id.name.as_str())
        .with("module_version", id.version.as_str())
        .with("kernelver", kernel.as_str())
        .with("arch", machine.arch.as_str())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::blanks(" a.sh  -n\n\tb ", &["a.sh", "-n", "b"])]
    #[case::empty_pairs(r#"configure --with-qat="" --host="" end"#, &["configure", "--with-qat=", "--host=", "end"])]
    #[case::pairs(r#"a.sh --x="y" "z""#, &["a.sh", "--x=y", "z"])]
    #[case::blank_in_quotes(r#"a.sh "b c"d"#, &["a.sh", "b cd"])]
    #[case::empty_pair_alone(r#"a.sh """#, &["a.sh"])]
    #[case::unpaired(r#"a.sh 5" x"#, &["a.sh", "5\"", "x"])]
    #[case::none("  ", &[])]
    fn splits_at_blanks_and_removes_paired_quotes(#[case] value: &str, #[case] want: &[&str]) {
        assert_eq!(words(value), want);
    }
}

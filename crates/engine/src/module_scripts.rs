//! Runs the scripts of a module: PRE_BUILD, POST_INSTALL and the like.

use std::path::PathBuf;

use crate::conf::known_directives;
use crate::dkms_tree::Workplace;
use crate::machine::Machine;
use crate::names::{KernelRelease, ModuleId};
use crate::os::process::{Environment, How, Output, Program, is_program};

/// A script about to be run.
pub(crate) struct Script<'a> {
    /// Which directive names it, e.g. `POST_INSTALL`.
    pub directive: &'static str,
    /// The directive's value: a file name and arguments, see [`words`].
    pub value: &'a str,
    /// The directory it is looked up in, and started in.
    pub place: Workplace,
}

impl<'a> Script<'a> {
    /// The program, ready to be run in `env`; none if there is no such executable file, which
    /// dkms takes for success. An executable of the same name in `/etc/dkms/M` takes the place of
    /// the module's own, directory included (dkms-behaviour 4.6).
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

    /// The directory of the executable file.
    fn dir(&self, machine: &Machine, id: &ModuleId) -> Option<PathBuf> {
        let file = words(self.value).into_iter().next()?;
        let dirs = [Workplace::open(machine.trees.etc.join(&id.name)), self.place.clone()];
        dirs.into_iter().find(|dir| is_program(&dir.real.join(&file))).map(|dir| dir.seen)
    }

    /// The command as dkms writes it into a log.
    pub(crate) fn command(&self, machine: &Machine, id: &ModuleId) -> String {
        let dir = self.dir(machine, id).unwrap_or_else(|| self.place.seen.clone());
        format!("cd {0}/ && {0}/{1}", dir.display(), words(self.value).join(" "))
    }

    /// The warning that there is no such script.
    pub(crate) fn missing(&self, id: &ModuleId) -> String {
        format!(
            "{} of {id} names {:?}, which is no executable file in {}: nothing was run",
            self.directive,
            self.value,
            self.place.seen.display()
        )
    }

    /// Runs it beside the source of a module.
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
                    "{id}: its {} script failed ({}): {}",
                    self.directive, ended.how, self.value
                ));
            }
            Err(error) => said.push(format!("{id}: its {} script: {error}", self.directive)),
        }
        Ran { said, status, cut_short }
    }
}

/// The words of a value, split at blanks. What stands between two double quotes belongs to one word, and the quotes do
/// not: dkms reads each value once more between quotes of its own, so that pairs of them vanish, and configure is
/// called with `--host=` where zfs's conf gives `--host=""`. A quote without another is a character as any other.
fn words(value: &str) -> Vec<String> {
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

/// The outcome of a script.
pub(crate) struct Ran {
    /// Its output, and that it failed, line by line.
    pub said: Vec<String>,
    /// Its exit status, as dkms passes it on; 0 if there was nothing to run.
    pub status: u8,
    /// Whether a signal interrupted it.
    pub cut_short: bool,
}

/// The exit status that stands for how a script ended.
pub(crate) fn exit_status(how: How) -> u8 {
    match how {
        How::Exited(code) => u8::try_from(code).unwrap_or(1),
        How::Killed(_) | How::TimedOut | How::Interrupted => 1,
    }
}

/// The variables that dkms exports to make and to scripts; the directives of the command line are
/// among them (dkms-behaviour 1.3).
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
    #[case::blank_between(r#"a.sh "b c"d"#, &["a.sh", "b cd"])]
    #[case::nothing(r#"a.sh """#, &["a.sh"])]
    #[case::lonely(r#"a.sh 5" x"#, &["a.sh", "5\"", "x"])]
    #[case::none("  ", &[])]
    fn splits_at_blanks_and_takes_pairs_of_quotes_off(#[case] value: &str, #[case] want: &[&str]) {
        assert_eq!(words(value), want);
    }
}

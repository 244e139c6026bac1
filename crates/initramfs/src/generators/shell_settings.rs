//! Settings that are shell scripts (mkinitcpio's presets, mkinitcpio.conf, dracut.conf), read by bash.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dkms_engine::machine::Machine;
use dkms_engine::os::process::Program;

/// The time limit for such files, which only set variables.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sources the files, then writes every new variable as name, index and value, each terminated by NUL. The output of the
/// files goes to standard error.
const SCRIPT: &str = r#"
exec 3>&1 >&2
declare -A _dkms_known
for _dkms_name in $(compgen -v); do _dkms_known[$_dkms_name]=1; done
_dkms_files=("$@")
set --
for _dkms_file in "${_dkms_files[@]}"; do . "$_dkms_file"; done
for _dkms_name in $(compgen -v); do
    [[ $_dkms_name == _dkms_* || -n ${_dkms_known[$_dkms_name]-} ]] && continue
    declare -n _dkms_value=$_dkms_name
    for _dkms_index in "${!_dkms_value[@]}"; do
        printf '%s\0%s\0%s\0' "$_dkms_name" "$_dkms_index" "${_dkms_value[$_dkms_index]}" >&3
    done
done
"#;

/// The variables that such files set, each with its elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ShellVariables(BTreeMap<String, Vec<String>>);

impl ShellVariables {
    /// Reads the files in order; a later one can change the variables of an earlier one.
    ///
    /// # Errors
    /// A sentence if bash cannot read them to the end.
    pub(super) fn read(machine: &Machine, files: &[PathBuf]) -> Result<Self, String> {
        Self::read_with(machine, files, &[])
    }

    /// Reads files that may use some given variables, each a name and a value.
    ///
    /// # Errors
    /// As [`ShellVariables::read`].
    pub(super) fn read_with(
        machine: &Machine,
        files: &[PathBuf],
        known: &[(&str, &str)],
    ) -> Result<Self, String> {
        if files.is_empty() {
            return Ok(Self::default());
        }
        let named =
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        let failed = |why: String| format!("cannot read {named}: {why}");
        let env =
            known.iter().fold(machine.env.clone(), |env, (name, value)| env.with(name, value));
        let program = Program::new(machine.tools.bash.clone(), &env);
        let ended = program
            .args(["--norc", "--noprofile", "-c", SCRIPT, "dkms"])
            .args(files)
            .deadline(PATIENCE)
            .run()
            .map_err(|error| failed(error.to_string()))?;
        if !ended.success() {
            return Err(failed(format!("{}: {}", ended.how, ended.complaint())));
        }
        Ok(Self::parse(&ended.output))
    }

    fn parse(output: &[u8]) -> Self {
        let mut variables = Self::default();
        let mut words = output.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        while let (Some(name), Some(_index), Some(value)) =
            (words.next(), words.next(), words.next())
        {
            variables.0.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        variables
    }

    /// Replaces a placeholder of a template in all values.
    pub(super) fn replace(mut self, word: &str, text: &str) -> Self {
        for value in self.0.values_mut().flatten() {
            *value = value.replace(word, text);
        }
        self
    }

    /// Returns a variable's value, or that of an array's first element. Returns `None` if it is unset or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.list(name).first().map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Returns all elements of an array, or the one value of a plain variable.
    pub(super) fn list(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the words of all elements.
    pub(super) fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).iter().flat_map(|text| text.split_whitespace())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn later_files_add_to_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let files = [
            write("a", "MODULES=(zfs 'a b'); echo loud; add_drivers=\" one \"\n"),
            write("b", "MODULES+=(spl); add_drivers+=\" two \"; false\n"),
        ];
        let variables = ShellVariables::read(&Machine::for_hook(Path::new("/")), &files).unwrap();
        assert_eq!(variables.list("MODULES"), ["zfs", "a b", "spl"]);
        assert_eq!(variables.words("add_drivers").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((variables.text("MODULES"), variables.text("HOME")), (Some("zfs"), None));
    }

    #[test]
    fn a_file_may_use_given_variables() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[[ $kernel == *-lts ]] || add_drivers+=zfs\n").unwrap();
        let machine = Machine::for_hook(Path::new("/"));
        let drivers = |release: &str| {
            let known = [("kernel", release)];
            let read = ShellVariables::read_with(&machine, &[file.path().to_owned()], &known);
            read.unwrap().text("add_drivers").map(str::to_owned)
        };
        assert_eq!((drivers("7.2"), drivers("6.12-lts")), (Some("zfs".into()), None));
    }

    #[test]
    fn a_file_that_exits_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "exit 3").unwrap();
        let why =
            ShellVariables::read(&Machine::for_hook(Path::new("/")), &[file.path().to_owned()])
                .unwrap_err();
        assert!(why.contains("exit status 3"), "{why}");
    }
}

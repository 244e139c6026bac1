//! Reads configuration files that are bash scripts: mkinitcpio's presets, mkinitcpio.conf,
//! dracut.conf.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::Machine;
use dkms_engine::os::bash::BashReader;
use dkms_engine::os::process::Environment;

/// The variables that configuration files set. Each name is mapped to the elements of the array, or
/// to the single value of a plain variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ShellVariables(BTreeMap<String, Vec<String>>);

impl ShellVariables {
    /// Reads the variables that `files` set. A later file can change the variables of an earlier
    /// one.
    ///
    /// # Errors
    /// A message if bash cannot read the files to the end.
    pub(super) fn read(reader: &mut BashReader, files: &[PathBuf]) -> Result<Self, String> {
        Self::read_with(reader, files, &[])
    }

    /// Sets the variables in `given` (pairs of name and value), evaluates `files` and returns the
    /// variables that the files set.
    ///
    /// # Errors
    /// See [`ShellVariables::read`].
    pub(super) fn read_with(
        reader: &mut BashReader,
        files: &[PathBuf],
        given: &[(&str, &str)],
    ) -> Result<Self, String> {
        // A link to /dev/null is a mask, not a file to read.
        let files: Vec<&Path> =
            files.iter().map(PathBuf::as_path).filter(|file| file.is_file()).collect();
        if files.is_empty() {
            return Ok(Self::default());
        }
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let reply = reader.read_all(&files, given).map_err(|error| error.to_string())?;
        let mut variables = Self::default();
        for (name, _index, value) in reply.variables {
            let value = String::from_utf8_lossy(&value).into_owned();
            variables.0.entry(name).or_default().push(value);
        }
        Ok(variables)
    }

    /// Replaces `word`, a placeholder in a template, with `text` in all values.
    pub(super) fn replace(mut self, word: &str, text: &str) -> Self {
        for value in self.0.values_mut().flatten() {
            *value = value.replace(word, text);
        }
        self
    }

    /// Returns the value of a plain variable or the first element of an array; `None` if the
    /// variable is unset or the value is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.list(name).first().map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Returns all elements of an array, or the single value of a plain variable. Returns an empty
    /// list if the variable is unset.
    pub(super) fn list(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the words of all elements, split at white space.
    pub(super) fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).iter().flat_map(|text| text.split_whitespace())
    }
}

/// The text of configuration files, to find the file that names a module.
#[derive(Debug)]
pub(super) struct SettingFiles {
    /// The path of each file on the machine, and its lines without comments.
    files: Vec<(String, Vec<String>)>,
}

impl SettingFiles {
    /// Reads `files`, which are paths below `root`.
    pub(super) fn read(root: &Path, files: &[PathBuf]) -> Self {
        let read = |file: &PathBuf| {
            let path = file.strip_prefix(root).unwrap_or(file);
            let text = fs::read(file).unwrap_or_default();
            let lines = String::from_utf8_lossy(&text);
            let lines = lines.lines().map(|line| line.split('#').next().unwrap_or_default());
            (format!("/{}", path.display()), lines.map(str::to_owned).collect())
        };
        Self { files: files.iter().map(read).collect() }
    }

    /// Returns the location of `word` in the variable `key`, such as `MODULES in
    /// /etc/mkinitcpio.conf`.
    ///
    /// The file is the first one with `key` and `word` on the same line, otherwise the first one
    /// with `word`, otherwise the first of all.
    pub(super) fn place(&self, key: &str, word: &str) -> String {
        let with = |words: &[&str]| {
            let has_all = |line: &String| words.iter().all(|word| has_word(line, word));
            self.files.iter().find(|(_, lines)| lines.iter().any(has_all))
        };
        let file = with(&[key, word]).or_else(|| with(&[word])).or(self.files.first());
        file.map_or_else(|| key.to_owned(), |(path, _)| format!("{key} in {path}"))
    }
}

/// Returns true if `line` contains `word` as a whole, not as part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let is_word_char = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    line.split(|c| !is_word_char(c)).any(|it| it == word)
}

/// Returns a reader that evaluates configuration files with bash in a fixed environment.
pub(super) fn reader(machine: &Machine) -> BashReader {
    // A variable in the caller's environment could be mistaken for a setting.
    BashReader::new(machine.tools.clone(), Environment::fixed())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    fn test_reader() -> BashReader {
        reader(&Machine::for_hook(Path::new("/")))
    }

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
        let variables = ShellVariables::read(&mut test_reader(), &files).unwrap();
        assert_eq!(variables.list("MODULES"), ["zfs", "a b", "spl"]);
        assert_eq!(variables.words("add_drivers").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((variables.text("MODULES"), variables.text("HOME")), (Some("zfs"), None));
    }

    #[test]
    fn a_file_can_use_given_variables() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[[ $kernel == *-lts ]] || add_drivers+=zfs\n").unwrap();
        let mut reader = test_reader();
        let mut drivers = |release: &str| {
            let known = [("kernel", release)];
            let read = ShellVariables::read_with(&mut reader, &[file.path().to_owned()], &known);
            read.unwrap().text("add_drivers").map(str::to_owned)
        };
        assert_eq!((drivers("7.2"), drivers("6.12-lts")), (Some("zfs".into()), None));
    }

    #[test]
    fn ignores_everything_except_regular_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["masked", "directory", "gone", "file"].map(|name| dir.path().join(name));
        std::os::unix::fs::symlink("/dev/null", &files[0]).unwrap();
        fs::create_dir(&files[1]).unwrap();
        fs::write(&files[3], "HOOKS=(zfs)\n").unwrap();
        let variables = ShellVariables::read(&mut test_reader(), &files).unwrap();
        assert_eq!(variables.list("HOOKS"), ["zfs"]);
        let nothing = ShellVariables::read(&mut test_reader(), &files[..3]).unwrap();
        assert_eq!(nothing, ShellVariables::default());
    }

    #[rstest]
    #[case::in_the_first_file("MODULES", "ext4", "MODULES in /etc/a.conf")]
    #[case::beside_the_variable("MODULES", "zfs", "MODULES in /etc/a.conf.d/b.conf")]
    #[case::on_a_line_of_its_own("MODULES", "nvidia-drm", "MODULES in /etc/a.conf.d/b.conf")]
    #[case::in_a_comment("MODULES", "spl", "MODULES in /etc/a.conf")]
    #[case::part_of_a_name("MODULES", "nvidia", "MODULES in /etc/a.conf")]
    fn finds_the_file_that_names_a_word(#[case] key: &str, #[case] word: &str, #[case] want: &str) {
        let root = TestRoot::new();
        root.write("etc/a.conf", "MODULES=(ext4)\nHOOKS=(base zfs)\n");
        root.write("etc/a.conf.d/b.conf", "MODULES+=(zfs # spl\n  nvidia-drm?\n)\n");
        let files = ["etc/a.conf", "etc/a.conf.d/b.conf"].map(|file| root.at(file));
        assert_eq!(SettingFiles::read(root.path(), &files).place(key, word), want);
    }

    #[test]
    fn a_file_that_exits_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["good", "bad", "last"].map(|name| dir.path().join(name));
        for (file, text) in files.iter().zip(["a=1", "exit 3", "b=2"]) {
            fs::write(file, text).unwrap();
        }
        let why = ShellVariables::read(&mut test_reader(), &files).unwrap_err();
        assert!(why.contains("bad: evaluation ended early"), "{why}");
    }
}

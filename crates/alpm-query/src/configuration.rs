//! Asks pacman-conf for the settings that decide where databases and package files are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command_line::CommandLine;

/// The settings of a transaction, from the configuration and the command line of pacman.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The database directory; `None` if the configuration cannot be read.
    pub dbpath: Option<PathBuf>,
    /// The directories with package files, in the order in which pacman searches them.
    pub cache_dirs: Vec<PathBuf>,
    /// The names of the repositories, in order.
    pub repositories: Vec<String>,
    /// The packages that an upgrade leaves out.
    pub ignored: Vec<String>,
    /// The groups of packages that an upgrade leaves out.
    pub ignored_groups: Vec<String>,
    /// The patterns of the files that pacman does not extract, in order.
    pub not_extracted: Vec<String>,
}

impl Configuration {
    /// Reads the configuration that pacman uses for the packages below `root`: the file
    /// `etc/pacman.conf` below `root`, unless the command line `line` names another file. As in
    /// pacman, options of `line` take precedence. If the configuration cannot be read, returns only
    /// these options and the default cache directory.
    pub fn read(root: &Path, line: Option<&CommandLine>) -> Self {
        let mut found = Self::default();
        let (mut file, mut rootdir) = (root.join("etc/pacman.conf"), root);
        if let Some(line) = line {
            file = line.config.clone().unwrap_or(file);
            rootdir = line.root.as_deref().unwrap_or(root);
            found.dbpath = line.dbpath.clone();
            found.cache_dirs = line.cache_dirs.clone();
            found.ignored = line.ignored.clone();
            found.ignored_groups = line.ignored_groups.clone();
        }
        match pacman_conf(&file, rootdir) {
            Some(text) => found.add(&text),
            None => found.cache_dirs.push(root.join("var/cache/pacman/pkg")),
        }
        found
    }

    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
            match (section, line.split_once(" = ")) {
                (Some("options"), _) => {}
                (Some(repository), _) => self.repositories.push(repository.to_owned()),
                (_, Some(("DBPath", path))) if self.dbpath.is_none() => {
                    self.dbpath = Some(path.into());
                }
                (_, Some(("CacheDir", path))) => self.cache_dirs.push(path.into()),
                (_, Some(("IgnorePkg", name))) => self.ignored.push(name.to_owned()),
                (_, Some(("IgnoreGroup", name))) => self.ignored_groups.push(name.to_owned()),
                (_, Some(("NoExtract", pattern))) => self.not_extracted.push(pattern.to_owned()),
                _ => {}
            }
        }
    }
}

/// Returns the output of pacman-conf, or `None` if the program fails. pacman-conf prints paths and
/// defaults in the form that pacman uses.
#[expect(clippy::disallowed_methods, reason = "this program does not use the engine")]
fn pacman_conf(file: &Path, rootdir: &Path) -> Option<String> {
    let mut command = Command::new("pacman-conf");
    command.arg("--config").arg(file).arg("--rootdir").arg(rootdir);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_takes_precedence() {
        let mut found = Configuration {
            dbpath: Some("/db".into()),
            cache_dirs: vec!["/first".into()],
            ..Configuration::default()
        };
        found.add(
            "[options]\nDBPath = /var/lib/pacman/\nCacheDir = /a/\nCacheDir = /b/\nIgnorePkg = gcc\n\
             NoExtract = usr/*\nNoExtract = !usr/lib/*\nCheckSpace\n[core]\nServer = file:///x\nSigLevel = Never\n[own]\n",
        );
        let expected = Configuration {
            dbpath: Some("/db".into()),
            cache_dirs: ["/first", "/a/", "/b/"].map(PathBuf::from).into(),
            repositories: ["core", "own"].map(str::to_owned).into(),
            ignored: vec!["gcc".to_owned()],
            ignored_groups: Vec::new(),
            not_extracted: ["usr/*", "!usr/lib/*"].map(str::to_owned).into(),
        };
        assert_eq!(found, expected);
    }
}

//! Reads the command line of a running pacman.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The long options of pacman that take a value. All other options are flags.
const WITH_VALUE: [&str; 16] = [
    "arch",
    "ask",
    "assume-installed",
    "cachedir",
    "color",
    "config",
    "dbpath",
    "gpgdir",
    "hookdir",
    "ignore",
    "ignoregroup",
    "logfile",
    "overwrite",
    "print-format",
    "root",
    "sysroot",
];

/// The bit of `open` that closes a descriptor on exec, as `/proc/PID/fdinfo` prints it.
const CLOEXEC: u32 = 0o2_000_000;

/// The parts of pacman's command line that decide which packages it installs, and from where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The cache directories, in the given order.
    pub cache_dirs: Vec<PathBuf>,
    /// The database directory.
    pub dbpath: Option<PathBuf>,
    /// The root directory that packages are installed to.
    pub root: Option<PathBuf>,
    /// The packages of `--ignore`.
    pub ignored: Vec<String>,
    /// The groups of `--ignoregroup`.
    pub ignored_groups: Vec<String>,
    /// Whether the operands are package files (`-U`).
    pub upgrade: bool,
    /// Whether all installed packages are upgraded (`-Su`).
    pub sysupgrade: bool,
    /// The names, files and URLs of packages.
    pub operands: Vec<OsString>,
    /// The directory that pacman was started in; `None` if unknown.
    directory: Option<PathBuf>,
}

/// Returns the words of a process's command line. `process` is the directory of the process in
/// `/proc`. Returns no words if the command line cannot be read.
pub fn words(process: &Path) -> Vec<OsString> {
    let text = fs::read(process.join("cmdline")).unwrap_or_default();
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// Returns the directory that the pacman process was started in; `None` if it cannot be determined.
///
/// While a hook runs, pacman's working directory is its root directory. pacman keeps its previous
/// directory open, with the flag close-on-exec. No other directory that it has open has this flag.
pub fn saved_directory(process: &Path) -> Option<PathBuf> {
    let descriptors = fs::read_dir(process.join("fd")).ok()?;
    let mut directories = descriptors.flatten().filter(|descriptor| {
        let info = process.join("fdinfo").join(descriptor.file_name());
        fs::metadata(descriptor.path()).is_ok_and(|found| found.is_dir())
            && fs::read_to_string(info).is_ok_and(|info| closes_on_exec(&info))
    });
    let saved = fs::read_link(directories.next()?.path()).ok()?;
    directories.next().is_none().then_some(saved)
}

fn closes_on_exec(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & CLOEXEC != 0)
}

impl CommandLine {
    /// Parses a command line as pacman does (`getopt_long`). Returns `None` if the program is not
    /// pacman. Relative paths are resolved against `directory`.
    pub fn parse(words: &[OsString], directory: Option<PathBuf>) -> Option<Self> {
        let mut words = words.iter().map(OsString::as_os_str);
        let program = Path::new(words.next()?).file_name()?;
        if program != "pacman" && program != "pacman-static" {
            return None;
        }
        let mut line = Self { directory, ..Self::default() };
        while let Some(word) = words.next() {
            match word.as_bytes() {
                b"--" => line.operands.extend(words.by_ref().map(OsStr::to_owned)),
                [b'-', b'-', long @ ..] => line.add_long(long, &mut words),
                [b'-', letters @ ..] if !letters.is_empty() => line.add_short(letters, &mut words),
                _ => line.operands.push(word.to_owned()),
            }
        }
        // `-` is not a package: it makes pacman read operands from standard input.
        line.operands.retain(|operand| operand != "-");
        Some(line)
    }

    /// Returns `path` as an absolute path; `None` if it is relative and pacman's directory is
    /// unknown.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = path.as_ref();
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        self.directory.as_ref().map(|directory| directory.join(path))
    }

    fn add_long<'a>(&mut self, option: &'a [u8], words: &mut impl Iterator<Item = &'a OsStr>) {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let name = parts.next().and_then(|name| str::from_utf8(name).ok()).unwrap_or_default();
        let value = parts.next().map(OsStr::from_bytes);
        if WITH_VALUE.contains(&name) {
            if let Some(value) = value.or_else(|| words.next()) {
                self.set(name, value);
            }
        } else {
            self.upgrade |= name == "upgrade";
            self.sysupgrade |= name == "sysupgrade";
        }
    }

    fn add_short<'a>(&mut self, letters: &'a [u8], words: &mut impl Iterator<Item = &'a OsStr>) {
        for (at, letter) in letters.iter().enumerate() {
            let name = match letter {
                b'b' => "dbpath",
                b'r' => "root",
                _ => {
                    self.upgrade |= *letter == b'U';
                    self.sysupgrade |= *letter == b'u';
                    continue;
                }
            };
            let rest = Some(OsStr::from_bytes(&letters[at + 1..])).filter(|rest| !rest.is_empty());
            if let Some(value) = rest.or_else(|| words.next()) {
                self.set(name, value);
            }
            return;
        }
    }

    fn set(&mut self, option: &str, value: &OsStr) {
        let names = || value.to_string_lossy().split(',').map(str::to_owned).collect::<Vec<_>>();
        match option {
            "config" => self.config = self.resolve(value),
            "cachedir" => self.cache_dirs.extend(self.resolve(value)),
            "dbpath" => self.dbpath = self.resolve(value),
            "root" => self.root = self.resolve(value),
            "ignore" => self.ignored.extend(names()),
            "ignoregroup" => self.ignored_groups.extend(names()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<CommandLine> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        CommandLine::parse(&words, Some("/home/me".into()))
    }

    fn empty() -> CommandLine {
        CommandLine { directory: Some("/home/me".into()), ..CommandLine::default() }
    }

    #[test]
    fn reads_files_to_install() {
        let expected = CommandLine {
            upgrade: true,
            operands: ["a.pkg.tar.zst", "-U", "--root"].map(OsString::from).into(),
            ..empty()
        };
        let line = parse(&["/usr/bin/pacman", "a.pkg.tar.zst", "-U", "-", "--", "-U", "--root"]);
        assert_eq!(line, Some(expected));
    }

    #[test]
    fn reads_options_with_values() {
        let expected = CommandLine {
            config: Some("/etc/own.conf".into()),
            cache_dirs: vec!["/one".into(), "/home/me/two".into()],
            dbpath: Some("/db".into()),
            root: Some("/mnt".into()),
            ignored: ["gcc", "make", "lld"].map(str::to_owned).into(),
            sysupgrade: true,
            operands: vec!["zfs-dkms".into()],
            ..empty()
        };
        let words = "pacman -Syu --config /etc/own.conf --cachedir=/one --cachedir two -yb /db -r/mnt \
                     --ignore gcc,make --ignore=lld --color always zfs-dkms --hookdir";
        assert_eq!(parse(&words.split(' ').collect::<Vec<_>>()), Some(expected));
    }

    #[test]
    fn reads_clusters_of_short_options() {
        for (words, upgrade, sysupgrade) in [
            ("pacman -U", true, false),
            ("pacman -Uu", true, true),
            ("pacman -Syu", false, true),
            ("pacman -S", false, false),
            ("pacman --upgrade", true, false),
            ("pacman --sync --sysupgrade", false, true),
        ] {
            let line = parse(&words.split(' ').collect::<Vec<_>>()).expect("pacman");
            assert_eq!((line.upgrade, line.sysupgrade), (upgrade, sysupgrade), "{words}");
        }
    }

    #[test]
    fn knows_pacman_by_its_name() {
        for words in [&["/usr/bin/pamac-daemon", "-U"][..], &["pacman-conf"], &[""], &["/"], &[]] {
            assert_eq!(parse(words), None, "{words:?}");
        }
        assert_eq!(parse(&["pacman-static"]), Some(empty()));
    }

    #[test]
    fn relative_paths_need_a_directory() {
        let words = ["pacman", "-Sb", "db", "--cachedir", "c", "--config=/a"].map(OsString::from);
        let line = CommandLine::parse(&words, None).expect("pacman");
        assert_eq!(line, CommandLine { config: Some("/a".into()), ..CommandLine::default() });
    }

    #[test]
    fn accepts_any_bytes() {
        let words = [&b"pacman"[..], b"-U\xff", b"--\xff=1", b"--cachedir=/\xff", b"\xfe", b""];
        let words = words.map(|word| OsStr::from_bytes(word).to_owned());
        let line = CommandLine::parse(&words, None).expect("pacman");
        assert!(line.upgrade);
        assert_eq!(line.cache_dirs, [Path::new(OsStr::from_bytes(b"/\xff"))]);
        assert_eq!(line.operands.len(), 2);
    }

    #[test]
    fn reads_the_flags_of_descriptors() {
        assert!(closes_on_exec("pos:\t0\nflags:\t02300000\nmnt_id:\t29\n"));
        for info in ["pos:\t0\nflags:\t0300000\n", "flags:\tx", ""] {
            assert!(!closes_on_exec(info), "{info}");
        }
    }

    #[test]
    fn a_missing_process_has_no_words() {
        assert_eq!(words(Path::new("/proc/none")), Vec::<OsString>::new());
        assert_eq!(saved_directory(Path::new("/proc/none")), None);
    }
}

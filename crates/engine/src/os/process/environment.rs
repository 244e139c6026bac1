//! The complete environment of a child process, which inherits no other variables.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::os::digest::Digest;
use crate::os::pin::Pin;

/// The PATH of [`Environment::fixed`], independent of the user's PATH.
pub(super) const FIXED_PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin";

/// The variables that builds do not inherit from the caller.
///
/// dkms unsets the compiler variables (dkms-behaviour 1.1). The flags of a make that runs dkms do
/// not apply to the builds.
const NOT_INHERITED: [&str; 8] =
    ["CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"];

/// Prefixes of the names of variables that describe the caller's session. Builds do not depend on
/// these variables.
const SESSION: [&str; 40] = [
    "COLOR",
    "COLUMNS",
    "DBUS_",
    "DEBUGINFOD_",
    "DESKTOP_",
    "DISPLAY",
    "EDITOR",
    "GPG_",
    "HIST",
    "HOME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LANG",
    "LC_",
    "LESS",
    "LINES",
    "LOGNAME",
    "LS_COLORS",
    "MAIL",
    "MANPATH",
    "MOTD_SHOWN",
    "OLDPWD",
    "PAGER",
    "PATH",
    "PS1",
    "PWD",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "SHELL",
    "SHLVL",
    "SSH_",
    "SUDO_",
    "SYSTEMD_",
    "TERM",
    "USER",
    "VISUAL",
    "WAYLAND_",
    "WINDOWID",
    "XAUTHORITY",
    "XDG_",
];

/// The variable from which sign-file reads the PIN of a token or the passphrase of a key.
const SIGN_PIN: &str = "KBUILD_SIGN_PIN";

/// All environment variables of a child process, except for `KBUILD_SIGN_PIN`.
///
/// `KBUILD_SIGN_PIN` is stored separately: only sign-file gets it, through
/// `Environment::with_pin`. Makefiles, confs and scripts must not see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    pin: Option<Pin>,
}

impl Environment {
    /// Returns the environment for programs that a hook runs: PATH, `LC_ALL=C` and `HOME=/root`.
    ///
    /// A hook inherits the user's environment from pacman. A different gcc in PATH or a stray
    /// `ARCH` would break builds.
    #[must_use]
    pub fn fixed() -> Self {
        Self::default().with("PATH", FIXED_PATH).with("LC_ALL", "C").with("HOME", "/root")
    }

    /// Returns the environment for programs that the command line runs.
    ///
    /// It is the environment of this process without the compiler variables, which dkms unsets as
    /// well, and without the variables of a make that runs this process.
    #[must_use]
    pub fn of_caller() -> Self {
        let inherited = |name: &OsStr| !NOT_INHERITED.iter().any(|other| *other == name);
        std::env::vars_os()
            .filter(|(name, _)| inherited(name))
            .fold(Self::default(), |env, (name, value)| env.with(name, value))
    }

    /// Sets the variable `name` to `value`.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        if name == SIGN_PIN {
            self.pin = Some(Pin::new(value));
        } else {
            self.variables.insert(name, value.into());
        }
        self
    }

    /// Returns the value of `KBUILD_SIGN_PIN`, or `None` if it is not set.
    pub(crate) fn pin(&self) -> Option<&Pin> {
        self.pin.as_ref()
    }

    /// Makes `pin` visible to the program as `KBUILD_SIGN_PIN`. Only for sign-file.
    #[must_use]
    pub(crate) fn with_pin(mut self, pin: &Pin) -> Self {
        self.variables.insert(SIGN_PIN.into(), pin.as_os_str().to_owned());
        self
    }

    /// Removes the variable `name`, if it is set.
    #[must_use]
    pub(crate) fn without(mut self, name: impl AsRef<OsStr>) -> Self {
        self.variables.remove(name.as_ref());
        self
    }

    /// Puts `dir` first in PATH.
    #[must_use]
    pub fn first_in_path(self, dir: &Path) -> Self {
        let mut path = dir.as_os_str().to_owned();
        path.push(":");
        path.push(self.search_path());
        self.with("PATH", path)
    }

    /// Sets the language of messages to English and leaves the rest of the locale as it is.
    ///
    /// LC_ALL would override LC_MESSAGES. Its value is therefore moved to LANG.
    #[must_use]
    pub(crate) fn with_english_messages(mut self) -> Self {
        let is_english = |all: &&OsStr| *all == "POSIX" || *all == "C" || *all == "C.UTF-8";
        if self.get("LC_ALL").as_ref().is_some_and(is_english) {
            return self;
        }
        if let Some(all) = self.variables.remove(OsStr::new("LC_ALL")).filter(|all| !all.is_empty())
        {
            self.variables.retain(|name, _| !name.as_encoded_bytes().starts_with(b"LC_"));
            self = self.with("LANG", all);
        }
        self.with("LC_MESSAGES", "C")
    }

    /// Returns the value of the variable `name`, or `None` if it is not set.
    #[must_use]
    pub(crate) fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.variables.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// Returns a digest of the variables on which a build may depend, such as `KCFLAGS`, `LLVM` and
    /// variables that only a module's own files use.
    #[must_use]
    pub(crate) fn build_digest(&self) -> Digest {
        let is_of_session = |name: &OsStr| {
            let name = name.to_string_lossy();
            name == "_" || SESSION.iter().any(|session| name.starts_with(session))
        };
        let variables = self.iter().filter(|(name, _)| !is_of_session(name));
        let texts = variables.flat_map(|(name, value)| [name, value]);
        let bytes: Vec<u8> = texts.flat_map(|it| [it.as_bytes(), b"\0"].concat()).collect();
        Digest::of_bytes(&bytes)
    }

    /// Returns every variable and its value, sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Returns the path of the first program `name` in this environment's PATH, or `None` if there
    /// is no such program.
    #[must_use]
    pub(crate) fn find(&self, name: impl AsRef<Path>) -> Option<PathBuf> {
        let dirs = std::env::split_paths(self.search_path());
        dirs.map(|dir| dir.join(&name)).find(|path| is_program(path))
    }

    /// Returns the value of PATH, or [`FIXED_PATH`] if PATH is not set.
    pub(super) fn search_path(&self) -> &OsStr {
        self.get("PATH").unwrap_or(OsStr::new(FIXED_PATH))
    }
}

/// Returns true if `path` is an executable file.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::fs;

    #[test]
    fn finds_the_first_executable_in_path() {
        let root = tempfile::tempdir().unwrap();
        let place = |dir: &str, mode: u32| {
            let file = root.path().join(dir).join("kmodsign");
            fs::create_dir(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        let (_, second, _) = (place("a", 0o644), place("b", 0o755), place("c", 0o755));
        let path = std::env::join_paths(["a", "b", "c"].map(|dir| root.path().join(dir))).unwrap();
        let env = Environment::fixed().with("PATH", path);
        assert_eq!(env.find("kmodsign"), Some(second));
        assert_eq!(env.find("kmodverify"), None);
    }

    #[test]
    fn puts_a_directory_first_in_path() {
        let env = Environment::fixed().first_in_path(Path::new("/t/.bin"));
        assert_eq!(env.get("PATH").unwrap(), "/t/.bin:/usr/bin:/usr/sbin:/bin:/sbin");
        let bare = Environment::fixed().without("PATH").first_in_path(Path::new("/t"));
        assert_eq!(bare.get("PATH").unwrap(), "/t:/usr/bin:/usr/sbin:/bin:/sbin");
    }

    #[test]
    fn pin_is_visible_only_to_sign_file() {
        let env = Environment::fixed().with("KBUILD_SIGN_PIN", "1234");
        let names = |env: &Environment| -> Vec<_> {
            env.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(&env), ["HOME", "LC_ALL", "PATH"]);
        assert!(!format!("{env:?}").contains("1234"));
        let pin = env.pin().unwrap();
        assert_eq!(env.clone().with_pin(pin).get("KBUILD_SIGN_PIN").unwrap(), "1234");
    }

    #[test]
    fn english_messages_leave_the_rest_of_the_locale() {
        let shown = |env: Environment| -> Vec<String> {
            let env = env.without("PATH").without("HOME").with_english_messages();
            env.iter()
                .map(|(name, value)| format!("{}={}", name.display(), value.display()))
                .collect()
        };
        let none = Environment::fixed().without("LC_ALL");
        assert_eq!(shown(Environment::fixed()), ["LC_ALL=C"]);
        let german = none.clone().with("LC_ALL", "de_DE.UTF-8").with("LC_MESSAGES", "de_DE");
        assert_eq!(shown(german), ["LANG=de_DE.UTF-8", "LC_MESSAGES=C"]);
        let czech = none.with("LANG", "cs_CZ.UTF-8").with("LC_CTYPE", "C");
        assert_eq!(shown(czech), ["LANG=cs_CZ.UTF-8", "LC_CTYPE=C", "LC_MESSAGES=C"]);
    }

    #[rstest]
    #[case::of_kbuild("KCFLAGS", "-g", true)]
    #[case::of_a_module("IGNORE_PREEMPT_RT_PRESENCE", "1", true)]
    #[case::empty("LLVM", "", true)]
    #[case::of_the_terminal("TERM_PROGRAM", "x", false)]
    #[case::of_the_session("XDG_RUNTIME_DIR", "/run/user/0", false)]
    #[case::of_a_login_shell("DEBUGINFOD_URLS", "https://debuginfod.archlinux.org", false)]
    #[case::of_a_developer("RUST_BACKTRACE", "1", false)]
    #[case::of_kernel_builds("RUST_LIB_SRC", "/opt/rust", true)]
    fn build_digest_omits_the_session(
        #[case] name: &str,
        #[case] value: &str,
        #[case] counts: bool,
    ) {
        let env = Environment::fixed();
        assert_eq!(env.build_digest(), Environment::default().build_digest());
        let changed = env.clone().with(name, value).build_digest() != env.build_digest();
        assert_eq!(changed, counts);
    }

    #[test]
    fn does_not_inherit_compiler_and_make_variables() {
        let env = Environment::of_caller();
        assert!(NOT_INHERITED.iter().all(|name| env.get(name).is_none()));
    }
}

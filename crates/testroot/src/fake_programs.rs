//! Fake programs that record how they were called.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::TestRoot;

impl TestRoot {
    /// A `PATH` in which the fake programs come first.
    #[must_use]
    pub fn search_path(&self) -> OsString {
        let others = env::var_os("PATH").unwrap_or_default();
        let dirs = [self.programs()].into_iter().chain(env::split_paths(&others));
        env::join_paths(dirs).expect("a PATH")
    }

    /// Writes an executable file, such as a script of a module, below the root.
    pub fn executable(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the file's directory");
        write_by_child(&path, text);
    }

    /// The directory of the fake programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        let dir = self.dir.path().join("programs");
        fs::create_dir_all(&dir).expect("the directory of the fake programs");
        dir
    }

    /// Makes a program that records its arguments (see [`TestRoot::calls`]), then does what `script`
    /// says in sh. `$0` is its own path, `$ROOT` the root.
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.programs().join(name);
        let text = format!(
            "#!/bin/sh\nROOT={}\necho \"$*\" >> \"$0.calls\"\n{script}\n",
            self.path().display()
        );
        write_by_child(&path, &text);
        path
    }

    /// A `depmod` whose last argument is the kernel release; it lists that kernel's objects in
    /// `modules.dep`.
    pub fn depmod(&self) -> PathBuf {
        self.program(
            "depmod",
            "for release; do :; done\n\
             cd \"$ROOT/usr/lib/modules/$release\" || exit 1\n\
             find . -name '*.ko' -o -name '*.ko.*' | sed 's,^\\./,,; s,$,:,' | LC_ALL=C sort > modules.dep",
        )
    }

    /// A `make` that counts, and is otherwise the machine's own.
    pub fn make(&self) -> PathBuf {
        self.passing("make")
    }

    /// A `strip` that counts, and is otherwise the machine's own.
    pub fn strip(&self) -> PathBuf {
        self.passing("strip")
    }

    /// The argument lines that a fake program was called with, in order; none if it never was.
    #[must_use]
    pub fn calls(&self, name: &str) -> Vec<String> {
        let log = self.programs().join(format!("{name}.calls"));
        fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        for entry in fs::read_dir(self.programs()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "calls") {
                fs::remove_file(entry.path()).expect("the calls to be forgotten");
            }
        }
    }

    fn passing(&self, name: &str) -> PathBuf {
        let path = env::var_os("PATH").unwrap_or_default();
        let real = env::split_paths(&path).map(|dir| dir.join(name)).find(|it| it.is_file());
        let real = real.unwrap_or_else(|| panic!("the tests need {name}"));
        // Under its own name, by which make starts other makes.
        let script = format!("exec bash -c 'exec -a {name} {} \"$@\"' - \"$@\"", real.display());
        self.program(name, &script)
    }
}

/// Writes a program through a child. If this process had the file open for writing, a test in
/// another thread that forks just then would keep it open, and running it fails: "text file busy".
#[expect(clippy::disallowed_methods, reason = "this crate does not use the engine")]
fn write_by_child(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = writer.stdin.take().expect("the shell's input");
    input.write_all(text.as_bytes()).expect("a fake program");
    drop(input);
    assert!(writer.wait().is_ok_and(|status| status.success()), "a fake program was not written");
}

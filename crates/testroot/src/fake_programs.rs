//! Fake programs that record their arguments.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::TestRoot;

impl TestRoot {
    /// Returns a `PATH` that starts with the directory of the fake programs.
    #[must_use]
    pub fn search_path(&self) -> OsString {
        let others = env::var_os("PATH").unwrap_or_default();
        let dirs = [self.programs()].into_iter().chain(env::split_paths(&others));
        env::join_paths(dirs).expect("join PATH")
    }

    /// Writes an executable file, such as a module's script, below the root. Creates its parent
    /// directories.
    pub fn executable(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent"))
            .expect("create the directory of a file");
        write_by_child(&path, text);
    }

    /// Returns the directory of the fake programs. Creates it if necessary.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        let dir = self.dir.path().join("programs");
        fs::create_dir_all(&dir).expect("create the directory of fake programs");
        dir
    }

    /// Creates a program that records its arguments (see [`TestRoot::calls`]) and then runs
    /// `script` with sh. In the script, `$0` is the program's path and `$ROOT` is the root. Returns
    /// the program's path.
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.programs().join(name);
        let text = format!(
            "#!/bin/sh\nROOT={}\necho \"$*\" >> \"$0.calls\"\n{script}\n",
            self.path().display()
        );
        write_by_child(&path, &text);
        path
    }

    /// Creates a fake `depmod` that lists a kernel's objects in `modules.dep`, one file for each
    /// module, and empties the other files of the index. As with the real depmod, an object in
    /// `updates` takes precedence over one in `kernel`. If `etc/depmod.d` exists, `kernel` takes
    /// precedence. The last argument of the program must be the kernel release. Returns the
    /// program's path.
    pub fn depmod(&self) -> PathBuf {
        self.program(
            "depmod",
            "for release; do :; done\n\
             cd \"$ROOT/usr/lib/modules/$release\" || exit 1\n\
             first=updates; [ -d \"$ROOT/etc/depmod.d\" ] && first=kernel\n\
             all=$(find . -name '*.ko' -o -name '*.ko.*' | sed 's,^\\./,,; s,$,:,' | LC_ALL=C sort)\n\
             { echo \"$all\" | grep \"^$first/\"; echo \"$all\" | grep -v \"^$first/\"; } |\n\
             awk -F/ '{ name = $NF; sub(/\\.ko.*/, \"\", name) } name && !seen[name]++' |\n\
             LC_ALL=C sort > modules.dep\n\
             for file in alias symbols; do : > modules.$file; done\n\
             for file in dep alias symbols; do printf '\\260\\007\\364\\127' > modules.$file.bin; done",
        )
    }

    /// Creates a `make` that records its calls and runs the machine's make. Returns the program's
    /// path.
    pub fn make(&self) -> PathBuf {
        self.passing("make")
    }

    /// Creates a `strip` that records its calls and runs the machine's strip. Returns the program's
    /// path.
    pub fn strip(&self) -> PathBuf {
        self.passing("strip")
    }

    /// Returns the arguments of each call of a fake program, in order, as one line per call.
    /// Returns an empty list if the program has not been called.
    #[must_use]
    pub fn calls(&self, name: &str) -> Vec<String> {
        let log = self.programs().join(format!("{name}.calls"));
        fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Deletes the records of all calls so far.
    pub fn forget_calls(&self) {
        for entry in fs::read_dir(self.programs()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "calls") {
                fs::remove_file(entry.path()).expect("remove recorded calls");
            }
        }
    }

    fn passing(&self, name: &str) -> PathBuf {
        let path = env::var_os("PATH").unwrap_or_default();
        let real = env::split_paths(&path).map(|dir| dir.join(name)).find(|it| it.is_file());
        let real = real.unwrap_or_else(|| panic!("the tests need {name}"));
        // make starts other makes by its own name, so the program must keep that name.
        let script = format!("exec bash -c 'exec -a {name} {} \"$@\"' - \"$@\"", real.display());
        self.program(name, &script)
    }
}

/// Writes an executable file through a child process.
///
/// If this process itself wrote the file, a test in another thread could fork while the file is
/// open. The forked process would keep the file open, and executing the file would fail with "text
/// file busy".
#[expect(clippy::disallowed_methods, reason = "this crate does not use the engine")]
fn write_by_child(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start a shell");
    let mut input = writer.stdin.take().expect("the input of the shell");
    input.write_all(text.as_bytes()).expect("write a fake program");
    drop(input);
    assert!(writer.wait().is_ok_and(|status| status.success()), "cannot write a fake program");
}

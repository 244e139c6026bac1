//! A root with databases, package files and processes, for tests of the program.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A temporary root. Dropping it deletes the root.
pub struct Machine(tempfile::TempDir);

impl Machine {
    /// Creates a root with an empty local database.
    pub fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write("var/lib/pacman/local/ALPM_DB_VERSION", "9\n");
        machine
    }

    /// Returns the absolute path for `path`, which is relative to the root.
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Writes a file. Creates its parent directories.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Adds a package to the local database. `relations` are additional sections of the package's
    /// `desc`.
    pub fn install<T: AsRef<str>>(
        &self,
        name: &str,
        version: &str,
        files: impl IntoIterator<Item = T>,
        relations: &str,
    ) {
        let dir = format!("var/lib/pacman/local/{name}-{version}");
        let desc = format!("%NAME%\n{name}\n\n%VERSION%\n{version}\n\n%ARCH%\nany\n\n{relations}");
        self.write(&format!("{dir}/desc"), desc);
        let files: String = files.into_iter().map(|file| file.as_ref().to_owned() + "\n").collect();
        self.write(&format!("{dir}/files"), format!("%FILES%\n{files}\n"));
    }

    /// Writes a package file to `file`. `relations` are additional lines of the package's
    /// `.PKGINFO`.
    pub fn pack(
        &self,
        file: &str,
        name: impl AsRef<OsStr>,
        version: &str,
        content: &[&str],
        relations: &[&str],
    ) {
        let unpacked = tempfile::tempdir().unwrap();
        for path in content {
            let path = unpacked.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        self.write(file, "");
        let pack = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/testbed/pack.sh");
        let mut command = Command::new(pack);
        command.arg(self.at(file)).arg(name).arg(version).arg(unpacked.path()).args(relations);
        succeed(&mut command);
    }

    /// Creates the sync database of a repository with these package files.
    pub fn repository(&self, name: &str, files: &[&str]) {
        let database = self.at(&format!("var/lib/pacman/sync/{name}.db.tar.gz"));
        fs::create_dir_all(database.parent().unwrap()).unwrap();
        let files = files.iter().map(|file| self.at(file));
        succeed(Command::new("repo-add").arg("-q").arg(database).args(files));
    }

    /// Starts a process that has pacman's command line `words`. Like pacman while a hook runs, the
    /// process keeps open the directory `dir`, in which it was started. It also inherits a
    /// descriptor of another directory.
    pub fn process(&self, dir: &str, words: &[&str]) -> Process {
        // The path of the script becomes an operand of the command line.
        self.write(
            "script",
            r#"opendir(my $saved, ".") && chdir("/") && ($| = 1) && print("ready\n") && sleep;"#,
        );
        fs::create_dir_all(self.at(dir)).unwrap();
        let mut child = Command::new("perl")
            .arg0(words[0])
            .arg(self.at("script"))
            .args(&words[1..])
            .current_dir(self.at(dir))
            .stdin(fs::File::open(self.at("var")).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Process(child)
    }

    /// Runs alpm-query on this root.
    pub fn run(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_alpm-query"))
            .arg("--root")
            .arg(self.0.path())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Runs alpm-query on this root, and returns its answer.
    pub fn answer(&self, words: &[&str], input: &[u8]) -> serde_json::Value {
        let output = self.run(words, input);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A process that ends when this value is dropped.
pub struct Process(Child);

impl Process {
    /// Returns the process ID, as an argument.
    pub fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! Reads and writes the files of a root, and inspects its modules, images and dkms status.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walkdir::WalkDir;

use crate::root::Root;

/// The directory of the kernels.
const KERNELS: &str = "usr/lib/modules";
/// The dkms tree.
const TREE: &str = "var/lib/dkms";

impl Root {
    /// Returns the text of a file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path))
            .unwrap_or_else(|error| panic!("cannot read /{path}: {error}"))
    }

    /// Writes a file and creates its parent directories. A file that begins with `#!` is
    /// executable.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap_or(&file)).expect("create directories in a root");
        // An existing symlink may lead out of the root.
        let _ = fs::remove_file(&file);
        fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write /{path}: {error}"));
        if text.starts_with("#!") {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
                .expect("make a file executable");
        }
    }

    /// Returns true if `path` exists, including dangling symlinks.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Returns the sorted names in a directory, or none if it does not exist.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Returns everything in a tree except directories, as sorted relative paths.
    pub fn files(&self, path: &str) -> Vec<String> {
        let top = self.path(path);
        let mut files: Vec<String> = WalkDir::new(&top)
            .into_iter()
            .flatten()
            .filter(|entry| !entry.file_type().is_dir())
            .filter_map(|entry| Some(entry.path().strip_prefix(&top).ok()?.display().to_string()))
            .collect();
        files.sort();
        files
    }

    /// Records the paths in a tree, each with its kind: `dir`, `file` or the target of the symlink.
    ///
    /// Contents and times are left out, so that two runs can be compared.
    pub fn snapshot(&self, path: &str) -> Snapshot {
        let top = self.path(path);
        let entries = WalkDir::new(&top).min_depth(1).into_iter().flatten();
        let paths = entries.map(|entry| {
            let kind = match fs::read_link(entry.path()) {
                Ok(target) => format!("-> {}", target.display()),
                Err(_) if entry.file_type().is_dir() => "dir".into(),
                Err(_) => "file".into(),
            };
            let path = entry.path().strip_prefix(&top).expect("a path in the tree");
            (path.display().to_string(), kind)
        });
        Snapshot(paths.collect())
    }

    /// Returns the content of a file.
    #[track_caller]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|error| panic!("cannot read /{path}: {error}"))
    }

    /// Returns the names of all kernel directories, including empty ones.
    pub fn kernels(&self) -> Vec<String> {
        self.names(KERNELS)
    }

    /// Returns the objects that are installed for a kernel, without the kernel's own, as paths such
    /// as `updates/dkms/bbswitch.ko.zst`.
    pub fn installed_objects(&self, release: &str) -> Vec<String> {
        let is_object = |name: &str| {
            Path::new(name).file_name().is_some_and(|name| name.to_string_lossy().contains(".ko"))
        };
        let mut files = self.files(&format!("{KERNELS}/{release}"));
        files.retain(|file| {
            is_object(file) && !file.starts_with("kernel/") && !file.starts_with("build/")
        });
        files
    }

    /// Returns one field that `modinfo` prints for the object that modprobe would load.
    #[track_caller]
    pub fn modinfo(&self, release: &str, module: &str, field: &str) -> String {
        self.run("modinfo", &["-k", release, "-F", field, module]).ok().text.trim_end().to_owned()
    }

    /// Returns the object that modules.dep lists for `module`, relative to the kernel's directory,
    /// or `None` if there is none.
    pub fn indexed(&self, release: &str, module: &str) -> Option<String> {
        let index =
            fs::read_to_string(self.path(&format!("{KERNELS}/{release}/modules.dep"))).ok()?;
        let objects = index.lines().filter_map(|line| line.split(':').next());
        let named = |object: &&str| {
            object.rsplit('/').next().and_then(|name| name.split(".ko").next()) == Some(module)
        };
        objects.into_iter().find(named).map(str::to_owned)
    }

    /// Asserts that `module` is installed for a kernel, is in modules.dep, and was built for this
    /// kernel.
    #[track_caller]
    pub fn assert_works(&self, release: &str, module: &str) {
        let object = self
            .indexed(release, module)
            .unwrap_or_else(|| panic!("{module} is not in modules.dep of {release}"));
        assert!(
            self.installed_objects(release).contains(&object),
            "{object} is in modules.dep of {release}, but was not installed by dkms"
        );
        let vermagic = self.modinfo(release, module, "vermagic");
        assert_eq!(vermagic.split(' ').next(), Some(release), "vermagic of {object}");
    }

    /// Asserts that a kernel has no object of `module`, neither as a file nor in modules.dep.
    #[track_caller]
    pub fn assert_absent(&self, release: &str, module: &str) {
        assert_eq!(
            self.indexed(release, module),
            None,
            "{module} is still in modules.dep of {release}"
        );
        let object = format!("/{module}.ko");
        let left: Vec<String> = self
            .installed_objects(release)
            .into_iter()
            .filter(|path| path.contains(&object))
            .collect();
        assert!(left.is_empty(), "{module} was not removed for {release}: {left:?}");
    }

    /// Returns the lines of our `dkms status`.
    #[track_caller]
    pub fn status(&self) -> Vec<String> {
        self.dkms(&["status"]).ok().lines().into_iter().map(str::to_owned).collect()
    }

    /// Returns the lines that `status` of the real dkms prints for the same tree.
    #[track_caller]
    pub fn peer_status(&self) -> Vec<String> {
        self.peer_dkms(&["status"]).lines().into_iter().map(str::to_owned).collect()
    }

    /// Returns the names of the modules in the dkms tree.
    pub fn tree(&self) -> Vec<String> {
        let mut names = self.names(TREE);
        names.retain(|name| !name.starts_with('.') && self.path(TREE).join(name).is_dir());
        names
    }

    /// Asserts that there is no pending work, and what [`assert_tidy`](Self::assert_tidy) asserts.
    #[track_caller]
    pub fn assert_settled(&self) {
        assert_eq!(self.pending(), [""; 0], "work is pending");
        self.assert_tidy();
    }

    /// Returns the file names of the pending work. A journal without paths is none: it shows only
    /// that a transaction is running, and goes with the last hook or the next run.
    pub fn pending(&self) -> Vec<String> {
        let dir = format!("{TREE}/.pending");
        let mut names = self.names(&dir);
        names.retain(|name| {
            !name.starts_with("journal-") || self.read(&format!("{dir}/{name}")).contains("[paths.")
        });
        names
    }

    /// Asserts that there are no build directories, no temporary files and no processes.
    #[track_caller]
    pub fn assert_tidy(&self) {
        assert_eq!(self.names(&format!("{TREE}/.build")), [""; 0], "build directories remain");
        let unfinished = |path: &String| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.starts_with(".tmp") || name.ends_with(".new")
        };
        for tree in [TREE, KERNELS, "usr/src", "etc/dkms"] {
            let left: Vec<String> =
                self.snapshot(tree).paths().into_iter().filter(unfinished).collect();
            assert!(left.is_empty(), "temporary files in /{tree}: {left:?}");
        }
        // As with dkms, the build directory of a failed build is kept for the user.
        let failed = self.names(&format!("{TREE}/.log"));
        let mut sources = self.snapshot(TREE).paths();
        sources.retain(|path| match path.split('/').collect::<Vec<_>>()[..] {
            [module, version, "build", _, ..] if !module.starts_with('.') => {
                !failed.iter().any(|name| name.starts_with(&format!("{module}-{version}-")))
            }
            _ => false,
        });
        assert_eq!(sources, [""; 0], "build directories remain");
        assert_eq!(self.processes(), [], "processes remain");
    }

    /// Replaces gcc with a wrapper that records each start.
    #[track_caller]
    pub fn count_compilers(&self) -> Compilers<'_> {
        // On Debian, gcc is a symlink to a name with the version.
        let real = self.run("readlink", &["-f", "/usr/bin/gcc"]).ok().text;
        let real = real.trim();
        assert_ne!(real, "/usr/bin/gcc", "the compiler is already counted");
        self.write(
            "usr/bin/gcc",
            &format!("#!/bin/bash\necho \"$*\" >>/{STARTS}\nexec -a gcc {real} \"$@\"\n"),
        );
        Compilers { root: self }
    }
}

/// The paths in a tree and their kinds, see [`Root::snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, String>);

impl Snapshot {
    /// Returns the sorted paths.
    pub fn paths(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Removes the paths for which `skip` returns true.
    pub fn without(mut self, skip: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|path, _| !skip(path));
        self
    }

    /// Asserts that the paths and kinds are those of `want`. On failure, prints the differences.
    #[track_caller]
    pub fn assert_matches(&self, want: &Self, when: &str) {
        let differences = self.differences(want);
        assert!(differences.is_empty(), "{when}: unexpected difference:{differences}");
    }

    /// Returns the entries that differ, one per line: with `-` those of `want`, with `+` those of
    /// this snapshot.
    pub fn differences(&self, want: &Self) -> String {
        let lines = |of: &Self, but: &Self, sign: &str| {
            let other = of.0.iter().filter(|(path, kind)| but.0.get(*path) != Some(*kind));
            other.map(|(path, kind)| format!("\n{sign} {path} {kind}")).collect::<String>()
        };
        lines(want, self, "-") + &lines(self, want, "+")
    }
}

/// The file to which the wrapper of gcc appends a line for each start.
const STARTS: &str = "var/log/compiler-starts";

/// The compilers started since [`Root::count_compilers`].
#[derive(Debug)]
pub struct Compilers<'root> {
    root: &'root Root,
}

impl Compilers<'_> {
    /// Returns the arguments of each start since the last call.
    pub fn starts(&self) -> Vec<String> {
        let starts = fs::read_to_string(self.root.path(STARTS)).unwrap_or_default();
        let _ = fs::remove_file(self.root.path(STARTS));
        starts.lines().map(str::to_owned).collect()
    }

    /// Asserts that no compiler has been started since the last call.
    #[track_caller]
    pub fn assert_none(&self) {
        assert_eq!(self.starts(), [""; 0], "compilers were started");
    }
}

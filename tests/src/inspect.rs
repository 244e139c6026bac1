//! Reads and writes the files of a root, and inspects its modules, images and dkms status.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walkdir::WalkDir;

use crate::root::Root;

/// The kernels' directory.
const KERNELS: &str = "usr/lib/modules";
/// The tree that our engine and dkms keep.
const TREE: &str = "var/lib/dkms";

impl Root {
    /// A file's text.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path))
            .unwrap_or_else(|error| panic!("cannot read /{path}: {error}"))
    }

    /// Writes a file, with its directories; one that begins with `#!` may be run.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap_or(&file)).expect("make directories in a root");
        // What stands there may be a link that leads out of the root.
        let _ = fs::remove_file(&file);
        fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write /{path}: {error}"));
        if text.starts_with("#!") {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
                .expect("make a file executable");
        }
    }

    /// Whether there is something at `path`, a dangling link included.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// The names in a directory, sorted; none if it does not exist.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Everything below a directory that is no directory, as sorted paths relative to it.
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

    /// What stands below a directory: each path, relative to it, with `dir`, `file` or a link's target.
    ///
    /// Two runs that came to the same state give the same picture; times and contents are not in it.
    pub fn picture(&self, path: &str) -> Picture {
        let top = self.path(path);
        let entries = WalkDir::new(&top).min_depth(1).into_iter().flatten();
        let paths = entries.map(|entry| {
            let kind = match fs::read_link(entry.path()) {
                Ok(target) => format!("-> {}", target.display()),
                Err(_) if entry.file_type().is_dir() => "dir".into(),
                Err(_) => "file".into(),
            };
            let path = entry.path().strip_prefix(&top).expect("a path below its top");
            (path.display().to_string(), kind)
        });
        Picture(paths.collect())
    }

    /// A file's bytes.
    #[track_caller]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|error| panic!("cannot read /{path}: {error}"))
    }

    /// The kernels that have a directory, whatever is in it.
    pub fn kernels(&self) -> Vec<String> {
        self.names(KERNELS)
    }

    /// The objects that are placed for a kernel beside its own: `updates/dkms/bbswitch.ko.zst`.
    pub fn placed(&self, release: &str) -> Vec<String> {
        let is_object = |name: &str| {
            Path::new(name).file_name().is_some_and(|name| name.to_string_lossy().contains(".ko"))
        };
        let mut files = self.files(&format!("{KERNELS}/{release}"));
        files.retain(|file| {
            is_object(file) && !file.starts_with("kernel/") && !file.starts_with("build/")
        });
        files
    }

    /// One field of `modinfo` on the object that modprobe would load for `module`.
    #[track_caller]
    pub fn modinfo(&self, release: &str, module: &str, field: &str) -> String {
        self.run("modinfo", &["-k", release, "-F", field, module]).ok().text.trim_end().to_owned()
    }

    /// The object that modules.dep names for `module`, relative to the kernel's directory.
    pub fn indexed(&self, release: &str, module: &str) -> Option<String> {
        let index =
            fs::read_to_string(self.path(&format!("{KERNELS}/{release}/modules.dep"))).ok()?;
        let objects = index.lines().filter_map(|line| line.split(':').next());
        let named = |object: &&str| {
            object.rsplit('/').next().and_then(|name| name.split(".ko").next()) == Some(module)
        };
        objects.into_iter().find(named).map(str::to_owned)
    }

    /// Asserts that `module` is placed for a kernel, is found by modprobe, and was made for this kernel.
    #[track_caller]
    pub fn assert_works(&self, release: &str, module: &str) {
        let object = self
            .indexed(release, module)
            .unwrap_or_else(|| panic!("{module} is not in modules.dep of {release}"));
        assert!(
            self.placed(release).contains(&object),
            "{object} is in modules.dep of {release}, but not ours"
        );
        let vermagic = self.modinfo(release, module, "vermagic");
        assert_eq!(vermagic.split(' ').next(), Some(release), "vermagic of {object}");
    }

    /// Asserts that nothing of `module` is left for a kernel: no object and no line of modules.dep.
    #[track_caller]
    pub fn assert_absent(&self, release: &str, module: &str) {
        assert_eq!(
            self.indexed(release, module),
            None,
            "modules.dep of {release} still names {module}"
        );
        let object = format!("/{module}.ko");
        let left: Vec<String> =
            self.placed(release).into_iter().filter(|path| path.contains(&object)).collect();
        assert!(left.is_empty(), "left of {module} for {release}: {left:?}");
    }

    /// The lines of our `dkms status`.
    #[track_caller]
    pub fn status(&self) -> Vec<String> {
        self.dkms(&["status"]).ok().lines().into_iter().map(str::to_owned).collect()
    }

    /// The lines of the real dkms's `status`, of the same tree.
    #[track_caller]
    pub fn peer_status(&self) -> Vec<String> {
        self.peer_dkms(&["status"]).lines().into_iter().map(str::to_owned).collect()
    }

    /// The modules that the dkms tree knows, as directory names; our own hidden ones left out.
    pub fn tree(&self) -> Vec<String> {
        let mut names = self.names(TREE);
        names.retain(|name| !name.starts_with('.') && self.path(TREE).join(name).is_dir());
        names
    }

    /// Asserts that no run left anything to do or anything unfinished.
    #[track_caller]
    pub fn assert_settled(&self) {
        assert_eq!(self.pending(), [""; 0], "pending are left");
        self.assert_tidy();
    }

    /// Pending work, as file names.
    pub fn pending(&self) -> Vec<String> {
        self.names(&format!("{TREE}/.pending"))
    }

    /// Asserts that nothing unfinished is left: no build directories, no half-written files, no processes.
    #[track_caller]
    pub fn assert_tidy(&self) {
        assert_eq!(self.names(&format!("{TREE}/.build")), [""; 0], "build directories are left");
        let unfinished = |path: &String| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.starts_with(".tmp") || name.ends_with(".new")
        };
        for tree in [TREE, KERNELS, "usr/src", "etc/dkms"] {
            let left: Vec<String> =
                self.picture(tree).paths().into_iter().filter(unfinished).collect();
            assert!(left.is_empty(), "unfinished files below /{tree}: {left:?}");
        }
        // What a failed build made stays for its user to look at, as with dkms.
        let failed = self.names(&format!("{TREE}/.failed"));
        let mut sources = self.picture(TREE).paths();
        sources.retain(|path| match path.split('/').collect::<Vec<_>>()[..] {
            [module, version, "build", _, ..] if !module.starts_with('.') => {
                !failed.iter().any(|name| name.starts_with(&format!("{module}-{version}-")))
            }
            _ => false,
        });
        assert_eq!(sources, [""; 0], "what was built in is left");
        assert_eq!(self.processes(), [], "processes are left");
    }

    /// Counts from now on how often a compiler is started.
    #[track_caller]
    pub fn count_compilers(&self) -> Compilers<'_> {
        // Debian's gcc is a link to one with its version in its name.
        let real = self.run("readlink", &["-f", "/usr/bin/gcc"]).ok().text;
        let real = real.trim();
        assert_ne!(real, "/usr/bin/gcc", "compilers are being counted already");
        self.write(
            "usr/bin/gcc",
            &format!("#!/bin/bash\necho \"$*\" >>/{STARTS}\nexec -a gcc {real} \"$@\"\n"),
        );
        Compilers { root: self }
    }
}

/// What stands below a directory, see [`Root::picture`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture(BTreeMap<String, String>);

impl Picture {
    /// The paths in it, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The same without the paths that `skip` names.
    pub fn without(mut self, skip: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|path, _| !skip(path));
        self
    }

    /// Asserts that it is the same as another one; if not, shows where they differ.
    #[track_caller]
    pub fn assert_is(&self, want: &Self, when: &str) {
        let lines = |of: &Self, but: &Self, sign: &str| {
            let other = of.0.iter().filter(|(path, kind)| but.0.get(*path) != Some(*kind));
            other.map(|(path, kind)| format!("\n{sign} {path} {kind}")).collect::<String>()
        };
        let differences = lines(want, self, "-") + &lines(self, want, "+");
        assert!(differences.is_empty(), "{when}, there is not what there should be:{differences}");
    }
}

/// Where the stand-in for gcc writes a line for each start.
const STARTS: &str = "var/log/compiler-starts";

/// The compilers that were started since [`Root::count_compilers`].
#[derive(Debug)]
pub struct Compilers<'root> {
    root: &'root Root,
}

impl Compilers<'_> {
    /// The arguments of each start since the last call.
    pub fn starts(&self) -> Vec<String> {
        let starts = fs::read_to_string(self.root.path(STARTS)).unwrap_or_default();
        let _ = fs::remove_file(self.root.path(STARTS));
        starts.lines().map(str::to_owned).collect()
    }

    /// Asserts that no compiler was started since the last call.
    #[track_caller]
    pub fn assert_none(&self) {
        assert_eq!(self.starts(), [""; 0], "compilers were started");
    }
}

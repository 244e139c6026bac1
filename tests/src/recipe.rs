//! Packages that a story makes for itself in a line or two.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use crate::packages::{PackageFile, testbed};
use crate::root::Root;
use crate::run::run;

/// A package of a module, or of anything else, before it is made.
///
/// ```no_run
/// use stories::{Recipe, Root};
/// let root = Root::ready();
/// let broken = Recipe::like("bbswitch").version("0.9").edit("bbswitch.c", |code| code + "\n#error broken\n").make(&root);
/// root.install(&[broken]);
/// ```
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    version: String,
    package: String,
    /// Files of the module's source directory, by path below it.
    source: BTreeMap<String, String>,
    /// Other files, by path below the root.
    files: BTreeMap<String, String>,
    /// Lines of .PKGINFO.
    fields: Vec<String>,
}

impl Recipe {
    /// A package without any module.
    pub fn empty(package: &str, version: &str) -> Self {
        let (source, files) = Default::default();
        Self {
            name: String::new(),
            version: version.into(),
            package: package.into(),
            source,
            files,
            fields: Vec::new(),
        }
    }

    /// A module of a few lines, in the package `NAME-dkms`; it builds for any kernel.
    pub fn module(name: &str, version: &str) -> Self {
        let conf = format!(
            "PACKAGE_NAME=\"{name}\"\nPACKAGE_VERSION=\"{version}\"\nBUILT_MODULE_NAME[0]=\"{name}\"\n\
             DEST_MODULE_LOCATION[0]=\"/extra\"\nAUTOINSTALL=\"yes\"\n"
        );
        let code = format!(
            "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_VERSION(\"{version}\");\n\
             MODULE_DESCRIPTION(\"{name}\");\n"
        );
        let mut recipe = Self::empty(&format!("{name}-dkms"), version).depends("dkms");
        recipe.name = name.into();
        recipe
            .source("dkms.conf", &conf)
            .source("Makefile", &format!("obj-m := {name}.o\n"))
            .source(&format!("{name}.c"), &code)
    }

    /// The module that the testbed packages as `alias` (a plain one, such as `bbswitch` or `tp_smapi`), to be changed.
    #[track_caller]
    pub fn like(alias: &str) -> Self {
        let known = crate::find(alias);
        let (name, version) = known.module().split_once('/').expect("a module is name/version");
        let mut recipe = Self::empty(&known.name, version).depends("dkms");
        recipe.name = name.into();
        let top = testbed().join("sources/modules").join(format!("{name}-{version}"));
        for entry in
            WalkDir::new(&top).into_iter().flatten().filter(|entry| entry.file_type().is_file())
        {
            let path = entry
                .path()
                .strip_prefix(&top)
                .expect("a path below its top")
                .display()
                .to_string();
            recipe
                .source
                .insert(path, fs::read_to_string(entry.path()).expect("a module's source is text"));
        }
        recipe
    }

    /// Another version; dkms.conf names it too.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        let named = |line: &str| match line.starts_with("PACKAGE_VERSION=") {
            true => format!("PACKAGE_VERSION=\"{version}\"\n"),
            false => format!("{line}\n"),
        };
        self.edit("dkms.conf", |conf| conf.lines().map(named).collect())
    }

    /// Another name for the package; the module keeps its own.
    pub fn package(mut self, package: &str) -> Self {
        self.package = package.into();
        self
    }

    /// Puts a file into the module's source directory; one that begins with `#!` may be run.
    pub fn source(mut self, path: &str, text: &str) -> Self {
        self.source.insert(path.into(), text.into());
        self
    }

    /// Adds a line to dkms.conf.
    pub fn conf_line(self, line: &str) -> Self {
        self.edit("dkms.conf", |conf| format!("{conf}{line}\n"))
    }

    /// Changes a file of the module's source directory.
    #[track_caller]
    pub fn edit(mut self, path: &str, change: impl FnOnce(String) -> String) -> Self {
        let text = self
            .source
            .remove(path)
            .unwrap_or_else(|| panic!("{} has no file {path}", self.package));
        self.source.insert(path.into(), change(text));
        self
    }

    /// Adds any file to the package, by its path below the root.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    /// Adds all files below a directory of the checkout, which stand there as in a root.
    #[track_caller]
    pub fn files_of(mut self, top: &Path) -> Self {
        let entries = WalkDir::new(top).into_iter().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_file()) {
            let path = entry.path().strip_prefix(top).expect("a path below its top");
            let text = fs::read_to_string(entry.path()).expect("a file of the testbed is text");
            self = self.file(&path.display().to_string(), &text);
        }
        self
    }

    /// Depends on another package.
    pub fn depends(self, package: &str) -> Self {
        self.field("depend", package)
    }

    /// Takes another package's place: replaces it, provides it and conflicts with it.
    pub fn instead_of(self, package: &str) -> Self {
        self.field("replaces", package).field("conflict", package).field("provides", package)
    }

    /// Adds a line to .PKGINFO.
    pub fn field(mut self, key: &str, value: &str) -> Self {
        self.fields.push(format!("{key}={value}"));
        self
    }

    /// Makes the package; its file lies in `root`.
    #[track_caller]
    pub fn make(&self, root: &Root) -> PackageFile {
        let made = root.names("srv/made").len();
        let stage = format!("srv/stage-{made}");
        let source = format!("{stage}/usr/src/{}-{}", self.name, self.version);
        for (path, text) in &self.source {
            root.write(&format!("{source}/{path}"), text);
        }
        for (path, text) in &self.files {
            root.write(&format!("{stage}/{path}"), text);
        }
        // As from a packager who makes reproducible packages: that a file changed does not show in its time.
        let touch = ["-exec", "touch", "--date=@1700000000", "{}", "+"];
        root.run("find", &[&[stage.as_str()], &touch[..]].concat()).ok();
        let file = format!("srv/made/{made}.pkg.tar.zst");
        root.write(&file, "");
        fs::create_dir_all(root.path(&stage)).expect("make a package's directory");
        let version = format!("{}-1", self.version);
        let pack = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/pack.sh");
        let [out, tree] =
            [root.path(&file), root.path(&stage)].map(|path| path.display().to_string());
        let fields = self.fields.iter().map(String::as_str);
        run(
            pack,
            &[out.as_str(), &self.package, &version, &tree]
                .into_iter()
                .chain(fields)
                .collect::<Vec<_>>(),
        )
        .ok();
        fs::remove_dir_all(root.path(&stage)).expect("remove a package's directory");
        let content = if self.name.is_empty() {
            String::new()
        } else {
            format!("{}/{}", self.name, self.version)
        };
        PackageFile { name: self.package.clone(), version, content, file: format!("/{file}") }
    }
}

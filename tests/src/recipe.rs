//! Builds pacman packages that are needed by one story.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use crate::packages::{PackageFile, testbed};
use crate::root::Root;
use crate::run::run;

/// A description of a package, usually of a module. [`make`](Self::make) builds it.
///
/// ```no_run
/// use stories::{Recipe, Root};
/// let root = Root::ready();
/// let broken = Recipe::like("bbswitch")
///     .version("0.9")
///     .edit("bbswitch.c", |code| code + "\n#error broken\n")
///     .make(&root);
/// root.install(&[broken]);
/// ```
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    version: String,
    package: String,
    /// Files of the module's source directory, by relative path.
    source: BTreeMap<String, String>,
    /// Other files, by path relative to the root.
    files: BTreeMap<String, String>,
    /// Lines of .PKGINFO.
    fields: Vec<String>,
}

impl Recipe {
    /// A package without a module.
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

    /// A minimal module that builds for any kernel, in the package `NAME-dkms`.
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

    /// A copy of the module that the testbed packages as `alias`, such as `bbswitch` or `tp_smapi`.
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
                .expect("a path in the directory")
                .display()
                .to_string();
            recipe
                .source
                .insert(path, fs::read_to_string(entry.path()).expect("read a source file"));
        }
        recipe
    }

    /// Sets the version, also in dkms.conf.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        let named = |line: &str| match line.starts_with("PACKAGE_VERSION=") {
            true => format!("PACKAGE_VERSION=\"{version}\"\n"),
            false => format!("{line}\n"),
        };
        self.edit("dkms.conf", |conf| conf.lines().map(named).collect())
    }

    /// Sets the name of the package. The name of the module does not change.
    pub fn package(mut self, package: &str) -> Self {
        self.package = package.into();
        self
    }

    /// Adds a file to the module's source directory. A file that begins with `#!` is executable.
    pub fn source(mut self, path: &str, text: &str) -> Self {
        self.source.insert(path.into(), text.into());
        self
    }

    /// Adds a line to dkms.conf.
    pub fn conf_line(self, line: &str) -> Self {
        self.edit("dkms.conf", |conf| format!("{conf}{line}\n"))
    }

    /// Edits a file in the module's source directory.
    #[track_caller]
    pub fn edit(mut self, path: &str, change: impl FnOnce(String) -> String) -> Self {
        let text = self
            .source
            .remove(path)
            .unwrap_or_else(|| panic!("{path} is not in the source of {}", self.package));
        self.source.insert(path.into(), change(text));
        self
    }

    /// Adds a file to the package, by its path relative to the root.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    /// Adds all files in a directory of the checkout that is laid out like a root.
    #[track_caller]
    pub fn files_from(mut self, top: &Path) -> Self {
        let entries = WalkDir::new(top).into_iter().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_file()) {
            let path = entry.path().strip_prefix(top).expect("a path in the directory");
            let text = fs::read_to_string(entry.path()).expect("read a file of the testbed");
            self = self.file(&path.display().to_string(), &text);
        }
        self
    }

    /// Adds a dependency on another package.
    pub fn depends(self, package: &str) -> Self {
        self.field("depend", package)
    }

    /// Makes the package replace, provide and conflict with another package.
    pub fn replacing(self, package: &str) -> Self {
        self.field("replaces", package).field("conflict", package).field("provides", package)
    }

    /// Adds a line to .PKGINFO.
    pub fn field(mut self, key: &str, value: &str) -> Self {
        self.fields.push(format!("{key}={value}"));
        self
    }

    /// Builds the package in `root`.
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
        // As in a reproducible package: a changed file has the same time as before.
        let touch = ["-exec", "touch", "--date=@1700000000", "{}", "+"];
        root.run("find", &[&[stage.as_str()], &touch[..]].concat()).ok();
        fs::create_dir_all(root.path(&stage)).expect("create the directory of a package");
        let fields: Vec<&str> = self.fields.iter().map(String::as_str).collect();
        let package = pack(root, &stage, &self.package, &format!("{}-1", self.version), &fields);
        let content = if self.name.is_empty() {
            String::new()
        } else {
            format!("{}/{}", self.name, self.version)
        };
        PackageFile { content, ..package }
    }
}

/// Packs the directory `stage` of `root`, and removes it. `fields` are lines of .PKGINFO.
#[track_caller]
pub(crate) fn pack(
    root: &Root,
    stage: &str,
    name: &str,
    version: &str,
    fields: &[&str],
) -> PackageFile {
    let file = format!("srv/made/{}.pkg.tar.zst", root.names("srv/made").len());
    root.write(&file, "");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/pack.sh");
    let [out, tree] = [root.path(&file), root.path(stage)].map(|path| path.display().to_string());
    run(script, &[&[out.as_str(), name, version, &tree], fields].concat()).ok();
    fs::remove_dir_all(root.path(stage)).expect("remove the directory of a package");
    let (name, version) = (name.into(), version.into());
    PackageFile { name, version, content: String::new(), file: format!("/{file}") }
}

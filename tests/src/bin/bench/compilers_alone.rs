//! Measures the compilers alone: plain `make` of the same modules, under one jobserver on all
//! cores.

use std::time::Duration;

use stories::{Root, find};

use crate::measure;

/// A set of builds: every module for every kernel, by the aliases of their packages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work {
    pub kernels: &'static [&'static str],
    pub modules: &'static [&'static str],
}

/// The directory in which the modules are compiled.
const PLACE: &str = "/var/tmp/floor";

/// A script that copies a module's source to where its dkms.conf expects it, and adds a rule for it
/// to a Makefile. Its arguments are the kernel release, the name and the version.
const PREPARE: &str = r#"
    export kernelver=$1 kernel_source_dir=/usr/lib/modules/$1/build dkms_tree=$PLACE/$1 arch=x86_64
    source=/usr/src/$2-$3 build=$dkms_tree/$2/$3/build
    [[ -f $source/dkms.conf ]] || { echo "no dkms.conf in $source"; exit 1; }
    mkdir -p "$build"
    cp -a "$source/." "$build/"
    . "$build/dkms.conf"
    make=${MAKE[0]-make -C $kernel_source_dir M=$build}
    printf 'all: %s\n%s:\n\t+cd %s && %s >%s.log 2>&1\n' "$1-$2" "$1-$2" "$build" \
        "${make/#make/\$(MAKE) KERNELRELEASE=$kernelver}" "$PLACE/$1-$2" >>"$PLACE/Makefile"
"#;

impl Work {
    /// No builds.
    pub(crate) const NONE: Self = Self { kernels: &[], modules: &[] };

    /// Returns the kernel release, the module name and the module version of each build.
    fn pairs(&self) -> impl Iterator<Item = (String, String, String)> {
        self.kernels.iter().flat_map(|kernel| {
            self.modules.iter().map(|module| {
                let (release, module) = (find(kernel).content, find(module).content);
                let (name, version) = module.split_once('/').expect("a module is name/version");
                (release, name.to_owned(), version.to_owned())
            })
        })
    }

    /// Compiles the modules on a machine with the kernels and returns the CPU time of make and its
    /// descendants.
    pub(crate) fn compile(&self, root: &Root) -> Duration {
        for module in self.modules {
            // The machine may lack this version. Without hooks, its package only adds the source.
            let module = find(module);
            let (name, version) =
                module.module().split_once('/').expect("a module is name/version");
            if !root.exists(&format!("usr/src/{name}-{version}")) {
                root.install(&[module]);
            }
        }
        root.shell(&format!("mkdir -p {PLACE} && echo .PHONY: all >{PLACE}/Makefile")).ok();
        for (release, name, version) in self.pairs() {
            let prepare = format!("PLACE={PLACE}; set -- {release} {name} {version}; {PREPARE}");
            root.shell(&prepare).ok();
        }
        measure::run(root, "make", &[&format!("-j{}", measure::cores()), "-C", PLACE, "all"]).cpu
    }

    /// Asserts that every module is installed for every kernel.
    pub(crate) fn assert_placed(&self, root: &Root) {
        for (release, name, version) in self.pairs() {
            let built = format!("var/lib/dkms/{name}/{version}/{release}/x86_64/module");
            let mut objects = root.names(&built);
            objects.retain(|name| name.contains(".ko"));
            assert!(!objects.is_empty(), "{name}/{version} was not built for {release}");
            let placed = root.installed_objects(&release);
            for object in objects {
                let file = format!("/{object}");
                let found = placed.iter().any(|path| path.ends_with(&file));
                assert!(found, "{object} of {name}/{version} was not installed for {release}");
            }
        }
    }
}

//! Tests that compile-once precompiles headers, with a real gcc.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use assert_cmd::Command;
use testroot::TestRoot;

const MODULES: [&str; 3] = ["one", "two", "three"];

/// A root with a kernel's headers, three modules, and a copy of compile-once that wraps gcc.
struct WrappedGcc {
    root: TestRoot,
}

impl WrappedGcc {
    /// Creates a root in which `linux/module.h` contains `header`, and the shell commands `gcc` run
    /// before every start of gcc.
    fn with(header: &str, gcc: &str) -> Self {
        let root = TestRoot::new();
        root.program("gcc", &format!("{gcc}\nexec /usr/bin/gcc \"$@\""));
        root.dir("answers");
        root.dir("once");
        let ours = assert_cmd::cargo::cargo_bin!("compile-once");
        Command::new("cp").arg(ours).arg(root.at("once/gcc")).assert().success();
        root.write("h/include/linux/kconfig.h", "#define CONFIG_SMP 1\n");
        root.write(
            "h/include/linux/module.h",
            format!(
                "#ifndef MODULE_H\n#define MODULE_H\nstruct module {{ char name[9]; int smp; }};\n\
                 #define NAME KBUILD_MODNAME\n{header}\n#endif\n"
            ),
        );
        for module in MODULES {
            root.write(
                format!("{module}/{module}.mod.c"),
                "#include <linux/module.h>\n#include <linux/module.h>\n\n\
                 struct module it = { .name = NAME, .smp = CONFIG_SMP };\n",
            );
        }
        Self { root }
    }

    /// Compiles the `.mod.c` of `module` with `program`, as kbuild does. Returns and then removes
    /// the files written.
    fn compile(&self, program: &str, module: &str, more: &[&str]) -> Made {
        let headers = self.root.at("h/include");
        let kconfig = headers.join("linux/kconfig.h");
        let object = format!("{module}.mod.o");
        let path =
            format!("{}:{}", self.root.at("once").display(), self.root.search_path().display());
        Command::new(program)
            .env("PATH", path)
            .env("ALPM_DKMS_ANSWERS", self.root.at("answers"))
            .env("ALPM_DKMS_MANY_OBJECTS", "1")
            .current_dir(self.root.at(module))
            .arg("-Wp,-MMD,./.it.d")
            .args(["-nostdinc", "-g", "-O2", "-DMODULE"])
            .args([format!("-I{}", headers.display()), "-include".into()])
            .arg(kconfig)
            .args(more)
            .args([
                format!("-DKBUILD_BASENAME=\"{module}.mod\""),
                format!("-DKBUILD_MODNAME=\"{module}\""),
                format!("-D__KBUILD_MODNAME={module}"),
                "-c".into(),
                "-o".into(),
                object.clone(),
                format!("{module}.mod.c"),
            ])
            .assert()
            .success();
        let bytes = fs::read(self.root.at(module).join(&object)).unwrap();
        let dependencies = self.root.read(format!("{module}/.it.d"));
        // Differences in line breaks do not matter.
        let dependencies = dependencies.split_whitespace().filter(|word| *word != "\\");
        let made = Made {
            object: blake3::hash(&bytes).to_string(),
            dependencies: dependencies.map(str::to_owned).collect(),
        };
        self.root.remove(format!("{module}/{object}"));
        self.root.remove(format!("{module}/.it.d"));
        made
    }

    /// Returns a value for every start of gcc since the last call: true if precompiled headers were
    /// used.
    fn precompiled_headers_used(&self) -> Vec<bool> {
        let calls = self.root.calls("gcc");
        self.root.forget_calls();
        calls.iter().map(|call| call.contains("/includes.h -include")).collect()
    }

    /// Asserts that compile-once writes the same files as gcc for every module.
    fn assert_same_as_gcc(&self, more: &[&str]) {
        for module in MODULES {
            let made = self.compile("gcc", module, more);
            assert_eq!(made, self.compile("/usr/bin/gcc", module, more), "{module}");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Made {
    object: String,
    dependencies: Vec<String>,
}

/// The use of precompiled headers in each start of gcc, if the headers are created once.
///
/// The first file and the headers are compiled without precompiled headers. Then the first file is
/// compiled again to test the headers, and the other two files are compiled with the headers.
const ONCE: [bool; 5] = [false, false, true, true, true];

#[test]
fn precompiles_headers_once_without_changing_objects() {
    let wrapped = WrappedGcc::with("extern int more;", "");
    wrapped.assert_same_as_gcc(&[]);
    assert_eq!(wrapped.precompiled_headers_used(), ONCE);
    wrapped.assert_same_as_gcc(&["-DDEBUG"]);
    assert_eq!(wrapped.precompiled_headers_used(), ONCE, "other options require other headers");
    wrapped.assert_same_as_gcc(&[]);
    assert_eq!(wrapped.precompiled_headers_used(), [true; 3]);
}

#[test]
fn does_not_precompile_headers_that_depend_on_the_module() {
    for header in [
        "static const char own[] = KBUILD_MODNAME;",
        "#ifdef KBUILD_MODNAME\nstatic const char own[] __attribute__((used)) = \"x\";\n#endif",
    ] {
        let wrapped = WrappedGcc::with(header, "");
        wrapped.assert_same_as_gcc(&[]);
        let with = wrapped.precompiled_headers_used();
        assert_eq!(with.iter().rev().take(2).filter(|with| **with).count(), 0, "{with:?}");
    }
}

#[test]
fn stops_using_headers_that_fail() {
    let fails = "case \"$*\" in *includes.h*two.mod.o*) exit 1;; esac";
    let wrapped = WrappedGcc::with("", fails);
    wrapped.assert_same_as_gcc(&[]);
    assert_eq!(wrapped.precompiled_headers_used(), [false, false, true, true, false, false]);
}

#[test]
fn does_not_precompile_the_modules_own_headers() {
    let wrapped = WrappedGcc::with("", "");
    wrapped.assert_same_as_gcc(&["-I."]);
    assert_eq!(wrapped.precompiled_headers_used(), [false; 3]);
}

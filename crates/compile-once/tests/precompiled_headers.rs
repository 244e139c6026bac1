//! compile-once precompiles headers with a real gcc.

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
    /// `header` is what `linux/module.h` has beside its usual content; `gcc` what is done before
    /// gcc is started.
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

    /// Compiles one module's file with `program`, as kbuild does it.
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
        // Where lines are broken is for the eye.
        let dependencies = dependencies.split_whitespace().filter(|word| *word != "\\");
        let made = Made {
            object: blake3::hash(&bytes).to_string(),
            dependencies: dependencies.map(str::to_owned).collect(),
        };
        self.root.remove(format!("{module}/{object}"));
        self.root.remove(format!("{module}/.it.d"));
        made
    }

    /// Whether each start of gcc was with headers that were compiled before.
    fn with_compiled_headers(&self) -> Vec<bool> {
        let calls = self.root.calls("gcc");
        self.root.forget_calls();
        calls.iter().map(|call| call.contains("/includes.h -include")).collect()
    }

    /// Compiles all modules, and compares with what gcc makes of each alone.
    fn assert_as_gcc(&self, more: &[&str]) {
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

/// The first file is compiled as ever; then the headers, and once more to try them.
const ONCE: [bool; 5] = [false, false, true, true, true];

#[test]
fn headers_are_compiled_once_and_the_objects_are_the_same() {
    let wrapped = WrappedGcc::with("extern int more;", "");
    wrapped.assert_as_gcc(&[]);
    assert_eq!(wrapped.with_compiled_headers(), ONCE);
    wrapped.assert_as_gcc(&["-DDEBUG"]);
    assert_eq!(wrapped.with_compiled_headers(), ONCE, "other options make other headers");
    wrapped.assert_as_gcc(&[]);
    assert_eq!(wrapped.with_compiled_headers(), [true; 3]);
}

#[test]
fn headers_that_ask_who_includes_them_are_read_each_time() {
    for header in [
        "static const char own[] = KBUILD_MODNAME;",
        "#ifdef KBUILD_MODNAME\nstatic const char own[] __attribute__((used)) = \"x\";\n#endif",
    ] {
        let wrapped = WrappedGcc::with(header, "");
        wrapped.assert_as_gcc(&[]);
        let with = wrapped.with_compiled_headers();
        assert_eq!(with.iter().rev().take(2).filter(|with| **with).count(), 0, "{with:?}");
    }
}

#[test]
fn compiled_headers_that_do_not_work_are_done_without() {
    let fails = "case \"$*\" in *includes.h*two.mod.o*) exit 1;; esac";
    let wrapped = WrappedGcc::with("", fails);
    wrapped.assert_as_gcc(&[]);
    assert_eq!(wrapped.with_compiled_headers(), [false, false, true, true, false, false]);
}

#[test]
fn headers_of_the_modules_own_are_read_each_time() {
    let wrapped = WrappedGcc::with("", "");
    wrapped.assert_as_gcc(&["-I."]);
    assert_eq!(wrapped.with_compiled_headers(), [false; 3]);
}

//! `dkms explain` names the causes of failed builds, and its remedies work.

use stories::{Completed, PackageFile, Recipe, Root};

use crate::fixture::{kernel, machine, release};

/// The command that builds a module, as in most dkms.conf files.
const MAKE: &str = "make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build";

/// Returns a module whose source contains `code`.
fn source(name: &str, code: &str) -> Recipe {
    let include = "#include <linux/module.h>\n";
    let edit = |text: String| text.replace(include, &format!("{include}{code}\n"));
    Recipe::module(name, "1.0").edit(&format!("{name}.c"), edit)
}

/// Returns a module whose build first runs `script`, unless `/srv/fixed` exists.
fn scripted(name: &str, script: &str) -> Recipe {
    let script = format!("#!/bin/bash\n[ -e /srv/fixed ] && exit\n{script}\n");
    Recipe::module(name, "1.0")
        .source("first.sh", &script)
        .conf_line(&format!("MAKE[0]=\"./first.sh && {MAKE}\""))
}

fn explain(root: &Root, module: &str) -> Completed {
    root.dkms(&["explain", module, "-k", &release()]).ok()
}

/// Asserts that the explanation of a failed build marks the line of the log that contains `cause`, and
/// says what it `means`.
#[track_caller]
fn assert_explained(root: &Root, module: &str, cause: &str, means: &str) -> Completed {
    let output = explain(root, module);
    let marked: Vec<&str> = output.lines().into_iter().filter(|it| it.starts_with("  >")).collect();
    assert!(matches!(marked[..], [line] if line.contains(cause)), "{}", output.text);
    output.has(&format!("\n  means: {means}\n"))
}

/// Runs the first command of `program` that an explanation names.
#[track_caller]
fn follow(root: &Root, output: &Completed, program: &str) -> Completed {
    let (_, command) = output.text.split_once(&format!("run: {program} ")).expect("a command");
    let command = command.lines().next().unwrap_or_default();
    let confirm = if program == "pacman" { " --noconfirm" } else { "" };
    root.shell(&format!("{program} {command}{confirm}")).ok()
}

/// Follows the command of `program`, builds the module again, and asserts that it works.
#[track_caller]
fn assert_remedied(root: &Root, module: &str, output: &Completed, program: &str) {
    follow(root, output, program);
    if program != "dkms" {
        follow(root, output, "dkms");
    }
    root.assert_works(&release(), module);
}

#[test]
fn changed_interfaces_are_named_and_a_newer_source_builds() {
    let root = machine(&[]);
    let rows = [
        (
            "calls",
            "void f(void); void f(void) { del_timer_of_old(3); }",
            "implicit declaration of function",
            "no included header of this kernel declares the function del_timer_of_old",
        ),
        (
            "member",
            "void f(struct file *x); void f(struct file *x) { x->f_gone = 0; }",
            "no member named 'f_gone'",
            "in this kernel, struct file has no member f_gone",
        ),
        (
            "count",
            "void f(void); void f(void) { schedule_timeout(); }",
            "too few arguments",
            "in this kernel, the function schedule_timeout takes a different number of arguments",
        ),
        (
            "header",
            "#include <linux/gone.h>",
            "linux/gone.h",
            "this kernel has no header linux/gone.h",
        ),
        (
            "symbol",
            "extern void gone(void); void f(void); void f(void) { gone(); }",
            "\"gone\"",
            "neither this kernel nor any module that the build uses exports gone",
        ),
        (
            "space",
            "#include <linux/dma-buf.h>\nvoid f(void); void f(void) { dma_buf_put(NULL); }",
            "DMA_BUF",
            "in this kernel, dma_buf_put is in the namespace DMA_BUF, which the source does not import",
        ),
        (
            "closed",
            "#include <linux/device.h>\nint f(void); int f(void) { return device_register(NULL); }",
            "GPL-only symbol 'device_register'",
            "this kernel exports device_register only to modules with a GPL licence",
        ),
    ];
    let proprietary = |code: String| match code.contains("device_register") {
        true => code.replace("\"GPL\"", "\"Proprietary\""),
        false => code,
    };
    let make = |(name, code, ..): &(&str, &str, &str, &str)| {
        source(name, code).edit(&format!("{name}.c"), proprietary).make(&root)
    };
    let packages: Vec<PackageFile> = rows.iter().map(make).collect();
    let output = root.install(&packages).hooks_fail();
    output
        .has("\n  means: in this kernel, struct file has no member f_gone\n")
        .has(&format!("\n  see: dkms explain member/1.0 -k {}\n", release()));
    for (name, _, cause, means) in rows {
        assert_explained(&root, name, cause, means);
    }

    root.make_repository(&[Recipe::module("calls", "2.0").make(&root)]);
    root.pacman(&["-Sy"]).ok();
    let output =
        explain(&root, "calls").has("for calls/1.0, the repositories have calls-dkms 2.0-1");
    follow(&root, &output, "pacman");
    root.assert_works(&release(), "calls");
}

#[test]
fn packages_of_missing_files_are_named_and_complete_the_build() {
    let root = machine(&[]);
    let include =
        "echo '#include <libfrob/frob.h>' | gcc -idirafter /usr/include -fsyntax-only -x c -";
    let modules =
        [scripted("tool", "frobnicate").make(&root), scripted("library", include).make(&root)];
    let package =
        |name: &str, file: &str, text: &str| Recipe::empty(name, "1").file(file, text).make(&root);
    let packages = [
        package("frobnicate", "usr/bin/frobnicate", "#!/bin/sh\n"),
        package("libfrob", "usr/include/libfrob/frob.h", ""),
        package("pahole", "usr/bin/pahole", "#!/bin/sh\nexec /usr/bin/hidden-pahole \"$@\"\n"),
        package("gcc", "usr/bin/gcc", "#!/bin/sh\nexec /usr/bin/hidden-gcc \"$@\"\n"),
    ];
    root.make_repository(&packages);
    root.install(&modules)
        .hooks_fail()
        .has("means: the build runs frobnicate, which is not installed");
    let output = explain(&root, "tool").has("run: pacman -Fy && pacman -F usr/bin/frobnicate");
    root.pacman(&["-Syy"]).ok();
    follow(&root, &output, "pacman");
    root.pacman(&["-Fy"]).ok();
    let means = "the build runs frobnicate, which is not installed";
    let output = assert_explained(&root, "tool", "frobnicate: command not found", means);
    assert_remedied(&root, "tool", &output, "pacman");
    let means = "the header libfrob/frob.h is not installed, or is missing from the source";
    let output = assert_explained(&root, "library", "libfrob/frob.h", means);
    assert_remedied(&root, "library", &output, "pacman");

    root.shell("mv /usr/bin/pahole /usr/bin/hidden-pahole").ok();
    root.install(&[Recipe::module("types", "1.0").make(&root)])
        .hooks_fail()
        .has("run: pacman -S pahole");
    let means = "pahole, which generates the module's BTF, is not installed";
    let output = assert_explained(&root, "types", "pahole: not found", means);
    assert_remedied(&root, "types", &output, "pacman");

    root.shell("mv $(readlink -f /usr/bin/gcc) /usr/bin/hidden-gcc && rm /usr/bin/gcc").ok();
    root.install(&[Recipe::module("code", "1.0").make(&root)]).hooks_fail();
    let means = "the compiler or linker gcc is not installed";
    let output = assert_explained(&root, "code", "gcc: not found", means);
    let output = output.has("note: the kernel was built with x86_64-linux-gnu-gcc-16 ");
    assert_remedied(&root, "code", &output.has("; gcc is not installed"), "pacman");
}

#[test]
fn headers_that_are_missing_or_incomplete_are_installed_again() {
    let root = machine(&[]);
    root.make_repository(&kernel("linux", 1));
    root.pacman(&["-Sy"]).ok();
    let headers = format!("usr/lib/modules/{}/build", release());
    root.remove(&["linux-headers"]);
    root.install(&[Recipe::module("lacks", "1.0").make(&root)]);
    let output = explain(&root, "lacks").has("added").has("no kernel headers installed");
    follow(&root, &output, "pacman");
    root.assert_works(&release(), "lacks");

    root.shell(&format!("rm /{headers}/scripts/basic/fixdep")).ok();
    root.install(&[Recipe::module("part", "1.0").make(&root)]).hooks_fail();
    let means = "a program that belongs to the kernel headers is missing";
    let output = assert_explained(&root, "part", "fixdep", means);
    follow(&root, &output, "pacman");
    root.assert_works(&release(), "part");

    root.write(&format!("{headers}/include/config/kernel.release"), "6.1.0-1\n");
    root.install(&[Recipe::module("other", "1.0").make(&root)]).hooks_fail();
    let output = explain(&root, "other").has("6.1.0-1, not of");
    follow(&root, &output, "pacman");
    root.assert_works(&release(), "other");

    root.shell(&format!("mv /{headers} /srv/headers && ln -s /srv/gone /{headers}")).ok();
    root.install(&[Recipe::module("dangling", "1.0").make(&root)]);
    explain(&root, "dangling").has("leads to /srv/gone, which does not exist");
}

#[test]
fn builds_that_the_machine_prevents_succeed_after_the_remedy() {
    let root = machine(&[]);
    let modules = [
        scripted("online", "exec 3<>/dev/tcp/nosuch.invalid/80").make(&root),
        scripted("hungry", "ulimit -v 100000; make -C /usr/lib/modules/$(uname -r)/build M=$PWD")
            .make(&root),
    ];
    root.install(&modules).hooks_fail().has("run: dkms install hungry/1.0");
    let means = "the build could not reach a server; the network may be unavailable to hooks";
    let online = assert_explained(&root, "online", "nosuch.invalid: ", means);
    let means = "the build ran out of memory";
    let hungry = assert_explained(&root, "hungry", "memory", means);
    root.write("srv/fixed", "");
    for (module, output) in [("online", online), ("hungry", hungry)] {
        let output =
            output.has(": pending; the latest build failed\n").has("(attempts so far: 1 of 3)");
        assert_remedied(&root, module, &output, "dkms");
    }

    root.shell("rm /srv/fixed").ok();
    let disk =
        "mkdir -p /srv/disk && mount -t tmpfs -o size=64k disk /srv/disk && cp /dev/zero /srv/disk";
    root.install(&[scripted("large", disk).make(&root)]).hooks_fail();
    let means = "the disk was full, or a quota was exceeded";
    let large = assert_explained(&root, "large", "No space left on device", means);
    root.write("srv/fixed", "");
    assert_remedied(&root, "large", &large, "dkms");
}

#[test]
fn patches_and_commands_in_dkms_conf_can_be_overridden() {
    let root = machine(&[]);
    root.install(&kernel("linux-lts", 1));
    let other = kernel("linux-lts", 1)[0].release().to_owned();
    let patch =
        "--- a/patched.c\n+++ b/patched.c\n@@ -1,2 +1,2 @@\n no such line\n-another\n+new\n";
    let build = "M=$dkms_tree/$module/$module_version/build";
    let modules = [
        Recipe::module("patched", "1.0")
            .source("patches/fix.patch", patch)
            .conf_line("PATCH[0]=\"fix.patch\""),
        Recipe::module("fixed", "1.0")
            .conf_line(&format!("MAKE[0]=\"make -C /lib/modules/6.1.0-1/build {build}\"")),
        Recipe::module("wrong", "1.0")
            .conf_line(&format!("MAKE[0]=\"make -C /usr/lib/modules/{other}/build {build}\"")),
    ];
    let modules = modules.map(|module| module.make(&root));
    root.install(&modules).hooks_fail().has("see: dkms explain wrong/1.0");
    let means = "a patch in dkms.conf or /etc/dkms/patched/patches does not apply to the source";
    assert_explained(&root, "patched", "FAILED", means).has("see: PATCH in dkms.conf(5)");
    let means = "the module's build uses the headers of 6.1.0-1, which are not installed";
    assert_explained(&root, "fixed", "6.1.0-1", means);
    explain(&root, "wrong").has(&format!("built for kernel {other} instead of {}", release()));
    root.write("etc/dkms/patched.conf", "unset PATCH\n");
    for module in ["patched", "fixed", "wrong"] {
        if module != "patched" {
            root.write(&format!("etc/dkms/{module}.conf"), &format!("MAKE[0]=\"{MAKE}\"\n"));
        }
        let output = explain(&root, module);
        assert_remedied(&root, module, &output, "dkms");
    }
}

#[test]
fn another_compiler_that_comes_first_in_path_is_named() {
    let root = machine(&[]);
    root.write(
        "usr/local/bin/gcc",
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'gcc (local) 9.1.0' && exit\n\
         exec /usr/bin/gcc -fno-such-option \"$@\"\n",
    );
    root.install(&[Recipe::module("safe", "1.0").make(&root)]).hooks_succeed();
    let dkms = |command: &str| root.shell(&format!("PATH=/usr/local/bin:$PATH dkms {command}"));
    let build = format!("build safe/1.0 -k {} --force", release());
    dkms(&build).exits(10);
    dkms("explain safe")
        .has("installed; the latest build failed\n")
        .has("means: the compiler does not know the option -fno-such-option")
        .has("the first gcc in PATH is /usr/local/bin/gcc (gcc (local) 9.1.0)\n");
    root.shell("rm /usr/local/bin/gcc").ok();
    dkms(&build).ok();
    dkms("explain safe").ok().lacks("failed");
}

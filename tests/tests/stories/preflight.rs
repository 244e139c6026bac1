//! Modules are tried before a transaction: what builds is not built again, and what does not build
//! is reported or aborts the transaction.

use stories::{Completed, PackageFile, Recipe, Root, find};

use crate::fixture::{assert_status, installed, kernel, release};

/// The file with one line for each object that the compiler has compiled after the preflight.
const COMPILED: &str = "srv/compiled";

/// Creates a machine with `linux-1`, its headers and these modules, whose next transactions have a
/// preflight.
#[track_caller]
fn machine(modules: &[PackageFile]) -> Root {
    let root = Root::with_preflight();
    root.install(&[&kernel("linux", 1), modules].concat()).hooks_succeed();
    root
}

/// A module that builds for all kernels but `linux-2`.
fn broken_for_the_next_kernel(name: &str) -> Recipe {
    let flag = format!(
        "ccflags-$(if $(findstring {},$(KERNELRELEASE)),y) := -DNEXT\n",
        find("linux-2").release()
    );
    Recipe::module(name, "1.0")
        .edit("Makefile", |makefile| flag + &makefile)
        .edit(&format!("{name}.c"), |code| {
            code + "#ifdef NEXT\n#error this kernel is not supported\n#endif\n"
        })
}

/// Records what the compiler compiles from the end of the preflight on.
fn record_compiler(root: &Root) {
    root.shell(
        "cc1=$(gcc -print-prog-name=cc1) && mv $cc1 $cc1.real && \
         printf '#!/bin/sh\necho \"$*\" >>/srv/compiled\nexec %s.real \"$@\"\n' $cc1 >$cc1 && chmod 755 $cc1",
    )
    .ok();
    root.write(
        "etc/pacman.d/hooks/04-zz-forget.hook",
        "[Trigger]\nType = Package\nOperation = Install\nOperation = Upgrade\nTarget = *\n\
         [Action]\nWhen = PreTransaction\nExec = /usr/bin/rm -f /srv/compiled\n",
    );
}

#[test]
fn an_upgrade_of_the_kernel_uses_the_builds_of_the_preflight() {
    let root = machine(&[find("bbswitch"), find("tp_smapi")]);
    record_compiler(&root);
    let next = kernel("linux", 2);
    let release = next[0].release().to_owned();
    let upgrade = root.install(&next).hooks_succeed();
    let upgrade = upgrade.has(&format!("2 modules build for {release}"));
    assert!(!root.exists(COMPILED), "{}\n{}", root.read(COMPILED), upgrade.text);
    for module in ["bbswitch", "tp_smapi"] {
        root.assert_works(&release, module);
    }
    root.assert_settled();
}

//! `dkms explain` says why a module is in the state that it is in, without a failure.

use stories::{Recipe, Root};

use crate::fixture::{kernel, machine, release};

/// Asserts that `dkms explain` prints these lines, apart from indentation.
#[track_caller]
fn assert_explains(root: &Root, module: &str, want: &[&str]) {
    let output = root.dkms(&["explain", module]).ok();
    let lines: Vec<&str> = output.lines().into_iter().map(str::trim).collect();
    assert_eq!(lines, want, "{}", output.text);
}

#[test]
fn each_state_has_its_reason() {
    let (root, release) = (machine(&[]), release());
    let modules = [
        Recipe::module("plain", "1.0"),
        Recipe::module("manual", "1.0").conf_line("AUTOINSTALL=\"no\""),
        Recipe::module("limited", "1.0").conf_line("BUILD_EXCLUSIVE_KERNEL_MAX=\"6.12\""),
        Recipe::module("needs", "1.0").conf_line("BUILD_DEPENDS[0]=\"absent\""),
        Recipe::module("odd", "1.0").conf_line("MAKE[0]=\"echo nothing happens; exit 3\""),
    ];
    root.install(&modules.map(|module| module.make(&root))).hooks_fail();
    let of = |module: &str, state: &str| format!("{module}/1.0 for {release}: {state}");
    assert_explains(&root, "plain", &[&of("plain", "installed")]);
    assert_explains(
        &root,
        "manual",
        &[
            &of("manual", "not added"),
            &format!("not built automatically for {release}: AUTOINSTALL=\"no\""),
            &format!("run: dkms install manual/1.0 -k {release}"),
        ],
    );
    assert_explains(
        &root,
        "limited",
        &[
            &of("limited", "not added"),
            &format!("skipped for {release}: BUILD_EXCLUSIVE_KERNEL_MAX is 6.12"),
        ],
    );
    let needs = root.dkms(&["explain", "needs/1.0"]).ok();
    needs.has(&format!("skipped for {release}: depends on absent, which is not installed\n"));
    let odd = root.dkms(&["explain", "odd"]).ok();
    odd.has("cause: nothing happens\n")
        .has("means: unknown\n")
        .has("  nothing happens\n  to retry the build, run: dkms install odd/1.0");
    root.dkms(&["explain", "gone"])
        .exits(3)
        .has("dkms: error: gone: neither added nor in /usr/src");

    root.dkms(&["build", "manual/1.0", "-k", &release]).ok();
    root.dkms(&["explain", "manual"]).ok().has(&of("manual", "built, not installed"));
    root.dkms(&["uninstall", "plain/1.0", "-k", &release]).ok();
    assert_explains(
        &root,
        "plain",
        &[
            &of("plain", "built, not installed"),
            &format!("next: install plain/1.0 for {release} (built but not installed)"),
            &format!("run: dkms autoinstall -k {release}"),
        ],
    );
}

#[test]
fn other_kernels_and_versions_are_compared() {
    let root = machine(&[]);
    root.install(&kernel("linux-lts", 1));
    let (new, old) = (release(), kernel("linux-lts", 1)[0].release().to_owned());
    let flag =
        format!("ccflags-$(if $(findstring {new},$(KERNELRELEASE)),y) := -DNEW\nobj-m := late.o\n");
    let late = |version: &str| Recipe::module("late", "1.0").version(version);
    let broken = late("1.0").source("Makefile", &flag);
    let broken = broken.edit("late.c", |code| code + "#ifdef NEW\n#error too new\n#endif\n");
    root.install(&[broken.make(&root)]).hooks_fail();
    let output = root.dkms(&["explain", "late/1.0"]).ok();
    output
        .has(&format!("late/1.0 for {old}: installed\n"))
        .has(&format!("late/1.0 for {new}: failed\n"))
        .has(&format!(
            "note: late/1.0 is built for {old}: this kernel may be too new for the source\n"
        ));
    let json = root.dkms(&["explain", "late", "-k", &new, "--json"]).ok();
    json.has("\"state\": \"failed\"")
        .has("\"cause\": \"source-refuses\"")
        .has("\"is_cause\": true");

    // Any user may ask.
    let ask = ["--reuid", "65534", "--clear-groups", "dkms", "explain", "late", "-k", &new];
    root.run("setpriv", &ask).ok().has("means: the source refuses to be built for this kernel");
}

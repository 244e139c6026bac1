//! Modules are built in parallel for several kernels, with no more compilers than allowed.

use stories::{Recipe, Root, find};

use crate::fixture::kernel;

/// The file to which the wrapper of gcc appends the number of running compilers and the names of
/// the build directories.
const NOTES: &str = "var/log/compilers-at-once";

/// A module of several files that is built with the command `make`. Its Makefile requests nine
/// jobs.
fn greedy(name: &str, files: usize, make: &str) -> Recipe {
    let parts: String = (0..files).map(|part| format!(" part{part}.o")).collect();
    let makefile = format!(
        "ifneq ($(KERNELRELEASE),)\nobj-m := {name}.o\n{name}-y :={parts}\nelse\nall:\n\
         \tmake -j9 -C /usr/lib/modules/$(kernelver)/build M=$(CURDIR)\nendif\n"
    );
    let recipe = Recipe::module(name, "1.0")
        .source("Makefile", &makefile)
        .conf_line(&format!("MAKE[0]=\"{make}\""));
    let license =
        "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"\");\n";
    let recipe = recipe.source("part0.c", license);
    (1..files).fold(recipe, |recipe, part| {
        let code = format!("#include <linux/pci.h>\nextern int x;\nint {name}{part};\n");
        recipe.source(&format!("part{part}.c"), &code)
    })
}

#[test]
fn builds_for_two_kernels_share_the_job_limit() {
    let root = Root::ready();
    root.write("etc/dkms/alpm-dkms.toml", "[build]\njobs = 2\n");
    let real = root.run("readlink", &["-f", "/usr/bin/gcc"]).ok().text;
    root.write(
        "usr/bin/gcc",
        &format!(
            "#!/bin/bash\nmkdir -p /var/log/running; me=$(mktemp /var/log/running/XXXXXX)\n\
             echo $(ls /var/log/running | wc -l) $(ls /var/lib/dkms/.build) >>/{NOTES}\n\
             {} \"$@\"; code=$?; rm $me; exit $code\n",
            real.trim()
        ),
    );
    let tree = "-C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build";
    let modules = [
        greedy("first", 8, &format!("make -j9 {tree}")),
        greedy("second", 4, &format!("'make' --jobs 9 {tree}")),
        greedy("third", 4, &format!("MAKEFLAGS=-j9 make {tree}")),
        greedy("fourth", 4, "'make'"),
    ]
    .map(|module| module.make(&root));
    let kernels = [kernel("linux", 1), kernel("linux-lts", 1)].concat();
    root.install(&[&kernels[..], &modules, &[find("vhba")]].concat()).hooks_succeed();

    let releases = ["linux-1", "linux-lts-1"].map(|name| find(name).content);
    for release in &releases {
        for module in ["first", "second", "third", "fourth", "vhba"] {
            root.assert_works(release, module);
        }
    }
    let notes = root.read(NOTES);
    let at_once = notes.lines().filter_map(|line| line.split(' ').next()?.parse::<usize>().ok());
    assert_eq!(at_once.max(), Some(2), "{notes}");
    let is_built = |line: &str, release: &str| line.contains(&format!("first-1.0-{release}"));
    let both = |line: &str| releases.iter().all(|release| is_built(line, release));
    assert!(notes.lines().any(both), "no module was built for both kernels in parallel:\n{notes}");
    root.assert_settled();
}

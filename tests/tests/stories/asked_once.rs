//! What the kernel alone decides is asked of the compiler once for all modules.

use stories::{Root, find};

use crate::setting::{machine, object, release};

const MODULES: [&str; 3] = ["bbswitch", "vhba", "v4l2loopback"];

/// The objects without the names that their builds have, which hold where each was built.
fn objects(root: &Root) -> Vec<String> {
    let objects = MODULES.map(|module| object(&release(), module));
    let without_name = |path: &String| {
        root.shell(&format!(
            "cd /tmp && zstd -dfqo it.ko /{path} && objcopy -R .note.gnu.build-id it.ko && sha256sum it.ko"
        ))
        .ok()
        .text
    };
    objects.iter().map(without_name).collect()
}

#[test]
fn the_compiler_is_asked_once_what_is_the_same_for_all_modules() {
    let root = machine(&[]);
    let modules = MODULES.map(find);
    let compilers = root.count_compilers();
    // How often the compiler compiles kbuild's own file, and how often it is asked for an option.
    let build = |compile_once: bool| {
        // One after the other: two that begin together both ask.
        let settings = format!("compile_once = {compile_once}\njobs = 1\n[cache]\nsize = 0\n");
        root.write("etc/dkms/alpm-dkms.toml", &format!("[build]\n{settings}"));
        root.install(&modules).hooks_succeed();
        assert!(!root.exists("var/lib/dkms/.bin/once"), "answers are left");
        let starts = compilers.starts();
        let count = |what: &str| starts.iter().filter(|it| it.contains(what)).count();
        (count("scripts/module-common.c"), count("/dev/null"))
    };
    let (commons, options) = build(true);
    let once = objects(&root);
    let names = MODULES.map(|name| format!("{name}-dkms"));
    root.remove(&names.each_ref().map(String::as_str)).hooks_succeed();
    let (all_commons, all_options) = build(false);
    assert_eq!((commons, all_commons), (1, MODULES.len()));
    // An option that the compiler does not know is asked for by each of them.
    assert!(options >= all_options / MODULES.len(), "{options} of {all_options}");
    assert!(options < all_options / 2, "{options} of {all_options}");
    assert_eq!(objects(&root), once, "the objects differ");
}

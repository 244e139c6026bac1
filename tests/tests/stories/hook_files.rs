//! Our .hook files under real pacman: which program is told of which change, with dummies in place of the programs.

use stories::{Recipe, Root, find};

/// A dummy that notes how it was called and each line it was told.
const DUMMY: &str =
    "#!/bin/sh\nwhile read -r line; do echo \"${0##*/}${1:+ $1}: $line\" >>/var/log/told; done\n";

/// A dummy of the program that is told of no change, and only notes how it was called.
const WITHOUT_TARGETS: &str = "#!/bin/sh\necho \"${0##*/}${1:+ $1}\" >>/var/log/told\n";

/// These lines, and those of the hooks around other packages' hooks for images, which come last.
fn and_images<T: ToString>(lines: &[T]) -> Vec<String> {
    let images = ["mkinitcpio-dkms", "mkinitcpio-dkms --verify"].map(str::to_owned);
    lines.iter().map(ToString::to_string).chain(images).collect()
}

/// A root with our .hook files, but with dummies for the programs they name.
fn root_with_dummies() -> Root {
    let root = Root::bare();
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/../libalpm-hooks");
    for entry in std::fs::read_dir(hooks).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        root.write(
            &format!("usr/share/libalpm/hooks/{}", entry.file_name().to_str().unwrap()),
            &text,
        );
    }
    for (program, dummy) in
        [("dkms-install", DUMMY), ("dkms-remove", DUMMY), ("mkinitcpio-dkms", WITHOUT_TARGETS)]
    {
        root.write(&format!("usr/lib/alpm-dkms/{program}"), dummy);
    }
    root
}

/// What the dummies were told since the last call, in order.
fn told(root: &Root) -> Vec<String> {
    let told = root.read("var/log/told");
    root.write("var/log/told", "");
    told.lines().map(str::to_owned).collect()
}

/// A module package that needs no `dkms`, since none is installed here.
fn module(root: &Root, version: &str) -> stories::Package {
    Recipe::module("tiny", version).field("provides", "dkms").make(root)
}

#[test]
fn a_kernel_and_its_headers_arrive_and_leave() {
    let root = root_with_dummies();
    let release = find("linux-1").release().to_owned();
    root.install(&[find("linux-1"), find("linux-headers-1")]).ok().lacks("error");
    let paths = [
        format!("usr/lib/modules/{release}/build/include/"),
        format!("usr/lib/modules/{release}/modules.order"),
    ];
    let lines = |who: &str| paths.iter().map(|path| format!("{who}: {path}")).collect::<Vec<_>>();
    let parts = [lines("dkms-install --journal"), lines("dkms-install")];
    assert_eq!(told(&root), and_images(&parts.concat()));

    root.remove(&["linux", "linux-headers"]);
    let parts =
        [lines("dkms-install --journal"), lines("dkms-remove --depart"), lines("dkms-remove")];
    assert_eq!(told(&root), and_images(&parts.concat()));
}

#[test]
fn a_version_bump_is_an_arrival_and_a_departure() {
    let root = root_with_dummies();
    root.install(&[module(&root, "1.0")]);
    assert_eq!(
        told(&root),
        and_images(&[
            "dkms-install --journal: usr/src/tiny-1.0/dkms.conf",
            "dkms-install: usr/src/tiny-1.0/dkms.conf"
        ])
    );
    root.install(&[module(&root, "1.1")]);
    let want = [
        "dkms-install --journal: usr/src/tiny-1.0/dkms.conf",
        "dkms-install --journal: usr/src/tiny-1.1/dkms.conf",
        "dkms-remove --depart: usr/src/tiny-1.0/dkms.conf",
        "dkms-install: usr/src/tiny-1.1/dkms.conf",
        "dkms-remove: usr/src/tiny-1.0/dkms.conf",
    ];
    assert_eq!(told(&root), and_images(&want));
}

#[test]
fn our_own_coming_and_going_is_told_by_name() {
    let root = root_with_dummies();
    let ours = |root: &Root, version: &str| {
        let recipe = Recipe::empty("alpm-dkms", version)
            .file("usr/bin/dkms", "#!/bin/sh\n")
            .field("conflict", "dkms");
        recipe.field("provides", "dkms=3.4.3").make(root)
    };
    root.install(&[ours(&root, "0.1")]);
    assert_eq!(told(&root), and_images(&["dkms-install: alpm-dkms"]));
    root.install(&[ours(&root, "0.2")]);
    let upgrade = ["dkms-remove --depart: usr/bin/dkms", "dkms-install: alpm-dkms"];
    assert_eq!(told(&root), and_images(&upgrade));

    // Nobody is asked with --noconfirm, and the usual answer to a conflict is no.
    let swap = root.shell("yes | pacman -U /srv/stubs/dkms.pkg.tar.zst").ok();
    assert!(root.exists("etc/dkms/framework.conf"), "{}", swap.text);
    assert_eq!(
        told(&root),
        ["dkms-remove --depart: alpm-dkms", "dkms-remove --depart: usr/bin/dkms"]
    );

    root.shell("yes | pacman -U /srv/made/1.pkg.tar.zst").ok();
    assert_eq!(told(&root), and_images(&upgrade));
    root.remove(&["alpm-dkms"]);
    assert_eq!(told(&root), ["dkms-remove --depart: alpm-dkms"]);
}

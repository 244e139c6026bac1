//! Tests that the man page and the shipped file describe every key of `alpm-dkms.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::Settings;
use crate::machine::Trees;
use crate::os::process::{Environment, Tools};

const PAGE: &str = include_str!("../../../../../man/alpm-dkms.toml.5");
const SHIPPED: &str = include_str!("../../../../../packaging/alpm-dkms.toml");

/// The sections, each with the type that contains its keys and the source of the file that defines
/// the type.
const SECTIONS: [(&str, &str, &str); 8] = [
    ("build", "BuildSection", include_str!("own.rs")),
    ("cache", "CacheSection", include_str!("own.rs")),
    ("conf", "ConfSection", include_str!("own.rs")),
    ("initramfs", "InitramfsSettings", include_str!("initramfs.rs")),
    ("notify", "NotifySettings", include_str!("notify.rs")),
    ("preflight", "PreflightSettings", include_str!("preflight.rs")),
    ("signing", "SigningSection", include_str!("own.rs")),
    ("module.NAME", "ModuleSection", include_str!("own.rs")),
];

/// Returns the text of the man page, without the escapes of mdoc(7).
fn page() -> String {
    PAGE.replace("\\(dq", "\"")
}

/// Returns the keys of the man page and their defaults.
fn described() -> BTreeMap<String, String> {
    let page = page();
    let entries = page.lines().filter_map(|line| line.strip_prefix(".It Ic ")?.split_once(" Pq "));
    entries
        .map(|(key, about)| {
            let (_, default) = about.split_once(" , default : Li ").expect("a type and a default");
            (key.to_owned(), default.to_owned())
        })
        .collect()
}

/// Returns the keys of the shipped file and their values.
fn shipped() -> BTreeMap<String, String> {
    let mut section = "";
    let mut keys = BTreeMap::new();
    for line in SHIPPED.lines() {
        if let Some(name) = line.trim_start_matches('#').strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        if let Some((key, value)) = line.strip_prefix('#').and_then(|line| line.split_once(" = "))
            && !key.contains(' ')
        {
            keys.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    keys
}

/// Returns the keys that the program reads: the fields of the types of [`SECTIONS`].
fn read_by_program() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (section, name, source) in SECTIONS {
        let (_, definition) = source.split_once(&format!("struct {name} {{\n")).expect(name);
        let (fields, _) = definition.split_once("\n}").expect("the end of the type");
        for field in fields.lines().filter_map(|line| line.trim().split_once(": ")) {
            let name = field.0.trim_start_matches("pub(super) ").trim_start_matches("pub ");
            if !name.contains(' ') && name != "unknown" {
                keys.insert(format!("{section}.{name}"));
            }
        }
    }
    keys
}

#[test]
fn man_page_and_shipped_file_agree_on_keys_and_defaults() {
    assert_eq!(described(), shipped());
}

#[test]
fn man_page_has_the_keys_that_the_program_reads() {
    let described: BTreeSet<String> = described().into_keys().collect();
    assert_eq!(described, read_by_program());
}

#[test]
fn man_page_has_a_valid_example_of_each_key() {
    let page = page();
    let examples: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".Dl ")).collect();
    let keys: BTreeSet<String> = examples
        .iter()
        .filter_map(|example| Some(example.split_once(" = ")?.0))
        .map(|key| key.replace("v4l2loopback", "NAME"))
        .collect();
    assert_eq!(keys, described().into_keys().collect());

    let dir = tempfile::tempdir().unwrap();
    let trees = Trees::under(dir.path());
    fs::create_dir_all(&trees.etc).unwrap();
    fs::write(trees.etc.join("alpm-dkms.toml"), examples.join("\n")).unwrap();
    let settings = Settings::read(&trees, &Tools::default(), &Environment::fixed());
    assert_eq!(settings.problems, [""; 0]);
}

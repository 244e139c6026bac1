//! Whether Debian's own *-dkms packages can tell our dkms from the real one: each goes through both programs, for the
//! testbed's kernel with its real headers.
//!
//! `CORPUS='zfs- xone-'` takes only the packages whose names hold one of these words, and replaces only their rows of the
//! table.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "who waits for an hour likes to know for what")]

mod comparison;
mod lifecycle;
mod page;
mod source_package;

use std::fs;

use comparison::Comparison;
use page::Page;
use source_package::SourcePackage;

/// If set, the file that the table is written to.
const PAGE: &str = "CORPUS_PAGE";

#[test]
fn a_few_packages_are_as_with_dkms() {
    run("corpus-few");
}

#[test]
#[ignore = "takes an hour or two: make check-corpus"]
fn all_packages_are_as_with_dkms() {
    run("corpus");
}

/// Lets the packages of a stage go through both programs, and writes the table, whatever is in it.
fn run(stage: &str) {
    let comparison = Comparison::new(stage);
    let file = std::env::var_os(PAGE);
    // A run of a part replaces a part.
    let before = file.iter().filter_map(|file| fs::read_to_string(file).ok());
    let before: String = before.filter(|_| source_package::only().is_some()).collect();
    let mut page = Page::new(SourcePackage::all(stage));
    for source in SourcePackage::asked(stage) {
        eprintln!("{}", source.package);
        let result = comparison.run(&source);
        page.add(source, result);
        if let Some(file) = &file {
            // After each of them: a run takes hours, and may be ended before.
            fs::write(file, page.text(&comparison, &before)).expect("write the table");
        }
    }
    let findings = page.findings();
    assert!(findings.is_empty(), "{}", findings.join("\n\n"));
}

//! Compares alpm-dkms with the real dkms on Debian's `*-dkms` packages, with both kernels of the
//! testbed.
//!
//! `CORPUS='zfs- xone-'` selects the packages whose names contain one of these words, and replaces
//! only their rows of the table.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a run of hours prints its progress")]

mod comparison;
mod lifecycle;
mod page;
mod sections;
mod source_package;

use std::fs;

use comparison::{Comparison, KERNELS};
use page::Page;
use source_package::SourcePackage;

/// The environment variable that names the file for the table.
const PAGE: &str = "CORPUS_PAGE";

/// The package that `make check` also compares for the second kernel.
const ALSO_FOR_LTS: &str = "mstflint-dkms";

#[test]
fn selected_packages_behave_as_with_dkms() {
    run("corpus-few", |package| match package {
        ALSO_FOR_LTS => &KERNELS,
        _ => &KERNELS[..1],
    });
}

#[test]
#[ignore = "takes an hour or two: make check-corpus"]
fn all_packages_behave_as_with_dkms() {
    run("corpus", |_| &KERNELS);
}

/// Compares the packages of a stage, each for some of the [`KERNELS`], and writes the table, also if
/// they differ.
fn run(stage: &str, kernels: fn(&str) -> &'static [&'static str]) {
    let comparison = Comparison::new(stage);
    let file = std::env::var_os(PAGE);
    // A run of selected packages keeps the other rows.
    let before = file.iter().filter_map(|file| fs::read_to_string(file).ok());
    let before: String = before.filter(|_| source_package::only().is_some()).collect();
    let mut page = Page::new(SourcePackage::all(stage));
    for source in SourcePackage::asked(stage) {
        for kernel in kernels(&source.package) {
            eprintln!("{} {kernel}", source.package);
            page.add(kernel, &source, comparison.run(&source, kernel));
            if let Some(file) = &file {
                // Written after each package, because a run takes hours and may be interrupted.
                fs::write(file, page.text(&comparison, &before)).expect("write the table");
            }
        }
    }
    let findings = page.findings();
    assert!(findings.is_empty(), "{}", findings.join("\n\n"));
}

//! Checks the imports of the engine against the table in its `lib.rs`, and all crates for import
//! cycles.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic fails the test, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that every module may import. They may import only `os` and each other.
const IMPORTED_BY_ALL: [&str; 3] = ["names", "version", "failure"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns the rows of the table: each module with the modules that it may import.
fn table(lib: &str) -> Vec<(String, BTreeSet<String>)> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let row = |row: &str| {
        let (module, rest) = row.split_once('`').expect("a module");
        let allowed = rest.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let allowed = allowed.split(',').map(|name| name.trim().to_owned());
        (module.to_owned(), allowed.filter(|name| !name.is_empty()).collect())
    };
    rows.map(row).collect()
}

/// Returns the source files below `src` except tests, with the code of each file.
fn sources(src: &Path) -> BTreeMap<PathBuf, String> {
    let files = walkdir::WalkDir::new(src).into_iter().map(|entry| entry.unwrap().into_path());
    let is_test = |path: &Path| {
        path.iter().any(|name| name == "tests" || name == "tests.rs" || name == "property.rs")
    };
    let is_code = |path: &PathBuf| {
        let inside = path.strip_prefix(src).unwrap();
        path.extension().is_some_and(|end| end == "rs") && !is_test(inside)
    };
    files
        .filter(is_code)
        .map(|path| (path.clone(), code(&fs::read_to_string(path).unwrap())))
        .collect()
}

/// Returns `text` without comments and without the unit tests at its end.
fn code(text: &str) -> String {
    let mut lines = text.lines().peekable();
    let mut code = String::new();
    while let Some(line) = lines.next() {
        let starts_tests =
            line == "#[cfg(test)]" && lines.peek().is_some_and(|next| !next.ends_with(';'));
        if starts_tests {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Returns the paths that follow `prefix` in `code`, such as `machine::Kernel`. A path may be
/// followed by other code.
fn paths<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_start = |at: usize| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    };
    let starts = code.match_indices(prefix).filter(|(at, _)| is_start(*at));
    let each = |(at, _): (usize, &str)| {
        let path = &code[at + prefix.len()..];
        match path.strip_prefix('{').and_then(|list| list.split_once('}')) {
            Some((list, _)) => list.split(',').map(str::trim).filter(|it| !it.is_empty()).collect(),
            None => vec![path],
        }
    };
    starts.flat_map(each).collect()
}

/// Splits `text` after the identifier at its start.
fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let src = workspace().join("crates/engine/src");
    let table = table(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut above: BTreeSet<String> = BTreeSet::new();
    let mut wrong = Vec::new();
    for (module, allowed) in &table {
        assert!(allowed.is_subset(&above), "{module} may import modules that are not above it");
        above.insert(module.clone());
    }
    let rows: BTreeMap<_, _> = table.into_iter().collect();
    for (file, code) in sources(&src) {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let os = BTreeSet::from(["os".to_owned()]);
        let allowed = match rows.get(module) {
            Some(allowed) => allowed,
            None if IMPORTED_BY_ALL.contains(&module) => &os,
            None => {
                assert_eq!(module, "lib", "the table has no row for {}", inside.display());
                continue;
            }
        };
        for path in paths(&code, "crate::") {
            let imported = name(path).0;
            let of_all =
                IMPORTED_BY_ALL.contains(&imported) && !(module == "os" && imported == "failure");
            if imported != module && !of_all && !allowed.contains(imported) {
                wrong.push(format!("{} imports {imported}", inside.display()));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// Returns the source file of a module path such as `machine::settings::Framework`, which is
/// relative to `dir`. Returns `None` if there is no such file.
fn target(dir: &Path, path: &str, files: &BTreeMap<PathBuf, String>) -> Option<PathBuf> {
    let (step, rest) = name(path);
    let own = [dir.join(format!("{step}.rs")), dir.join(step).join("mod.rs")];
    let file = own.into_iter().find(|file| files.contains_key(file))?;
    let below = rest.strip_prefix("::").and_then(|rest| target(&dir.join(step), rest, files));
    Some(below.unwrap_or(file))
}

/// Returns the directory that contains the submodules of `file`. For `mod.rs`, `main.rs` and
/// `lib.rs`, that is the directory of the file itself.
fn directory(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap();
    let dir = file.parent().unwrap();
    if ["mod", "main", "lib"].iter().any(|own| stem == *own) { dir.into() } else { dir.join(stem) }
}

/// Returns the files that each source file below `src` imports. Parent modules are left out: a
/// module and its submodules count as one.
fn imports(src: &Path) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let files = sources(src);
    let of_file = |file: &PathBuf, code: &str| {
        let own = directory(file);
        let above = own.parent().unwrap_or(src);
        let mut found = BTreeSet::new();
        for (prefix, dir) in [("crate::", src), ("super::", above)] {
            found.extend(
                paths(code, prefix).into_iter().filter_map(|path| target(dir, path, &files)),
            );
        }
        found.retain(|other| other != file && !own.starts_with(directory(other)));
        found
    };
    files.iter().map(|(file, code)| (file.clone(), of_file(file, code))).collect()
}

#[test]
fn imports_have_no_cycles() {
    let root = workspace();
    let crates = ["crates", "hooks"].map(|dir| fs::read_dir(root.join(dir)).unwrap());
    let mut cycles = Vec::new();
    for src in crates.into_iter().flatten().map(|entry| entry.unwrap().path().join("src")) {
        let mut left = imports(&src);
        assert!(!left.is_empty(), "no sources in {}", src.display());
        // Remove files that import no remaining file. Files in a cycle are never removed.
        while let Some(file) = left
            .iter()
            .find(|(_, imports)| !imports.iter().any(|other| left.contains_key(other)))
            .map(|(file, _)| file.clone())
        {
            left.remove(&file);
        }
        cycles.extend(left.into_keys().map(|file| file.strip_prefix(&root).unwrap().to_owned()));
    }
    assert_eq!(cycles, Vec::<PathBuf>::new());
}

//! Finds the version of a module if the command line names only the module.

use std::collections::BTreeSet;

use dkms_engine::dkms_tree::{Added, TreeState};
use dkms_engine::facts;
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::names::{ModuleId, ModuleName};
use dkms_engine::os::symlinks;
use dkms_engine::version;

use crate::args::refusal::refuse;

/// Returns the only version of a module that is added or in the source tree.
///
/// # Errors
/// [`Failure`] with exit code 1 if there is no such version or more than one.
pub fn only_version(
    machine: &Machine,
    name: &ModuleName,
    command: &str,
) -> Result<ModuleId, Failure> {
    let mut versions: Vec<ModuleId> = versions(machine, name).into_iter().collect();
    match versions.as_slice() {
        [id] => Ok(id.clone()),
        [] => refuse(
            1,
            format!(
                "{name}: unknown module: not added, and no source in {}/{name}-VERSION",
                machine.trees.source.display()
            ),
        ),
        _ => {
            versions.sort_by(|a, b| version::compare(a.version.as_str(), b.version.as_str()));
            let list: Vec<String> = versions.iter().map(ToString::to_string).collect();
            let list = list.join(", ");
            let failure = Failure::new(1, format!("{name}: more than one version: {list}"));
            Err(failure.with_hint(format!("run: dkms {command} {name}/VERSION")))
        }
    }
}

/// Returns all versions of a module that are added or in the source tree.
pub fn versions(machine: &Machine, name: &ModuleName) -> BTreeSet<ModuleId> {
    let trees = &machine.trees;
    let known: Vec<ModuleId> = TreeState::read(trees)
        .modules
        .into_iter()
        .filter(|added| added.is_added() || added.is_broken())
        .map(|Added { id, .. }| id)
        .collect();
    // A directory `a-1-2` may belong to a/1-2 or to a-1/2. An added module resolves the ambiguity.
    // Without one, the dkms.conf does.
    let is_known = |dir: &str| {
        let path = symlinks::resolve(&trees.root, &trees.source.join(dir));
        known.iter().any(|id| {
            let source = symlinks::resolve(&trees.root, &trees.source_link(id));
            id.source_dir() == dir
                || path.as_ref().is_ok_and(|path| source.ok().as_ref() == Some(path))
        })
    };
    let start = format!("{name}-");
    let (mut dirs, _) = facts::source_dirs(trees);
    dirs.retain(|dir| dir.starts_with(&start) && !is_known(dir));
    let sources = facts::modules_of_sources(machine, &dirs).into_values().flatten();
    known.iter().cloned().chain(sources).filter(|id| id.name == *name).collect()
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    fn found(root: &TestRoot, name: &str) -> Vec<String> {
        let machine = Machine::for_hook(root.path());
        versions(&machine, &name.parse().expect("a name")).iter().map(ToString::to_string).collect()
    }

    fn add(root: &TestRoot, id: &str, dir: &str) {
        root.link(format!("var/lib/dkms/{id}/source"), format!("/usr/src/{dir}"));
    }

    #[test]
    fn lists_each_version_once() {
        let root = TestRoot::new();
        for (name, version) in [("foo", "1"), ("foo", "2"), ("foo-bar", "1")] {
            root.source(name, version);
        }
        root.dir("usr/src/foo-3"); // without a dkms.conf
        assert_eq!(found(&root, "foo"), ["foo/1", "foo/2"]);
        assert_eq!(found(&root, "bar"), [""; 0]);
        add(&root, "foo/1", "foo-1");
        add(&root, "foo/0", "foo-0"); // broken
        assert_eq!(found(&root, "foo"), ["foo/0", "foo/1", "foo/2"]);
    }

    #[test]
    fn added_modules_and_confs_decide_how_a_directory_name_is_split() {
        let root = TestRoot::new();
        root.source("foo-1", "2");
        assert_eq!(found(&root, "foo-1"), ["foo-1/2"]);
        assert_eq!(found(&root, "foo"), [""; 0]);
        add(&root, "foo/1-2", "foo-1-2");
        assert_eq!(found(&root, "foo"), ["foo/1-2"]);
        assert_eq!(found(&root, "foo-1"), [""; 0]);
        root.source("bar", "1-2");
        assert_eq!(found(&root, "bar"), ["bar/1-2"]);
        assert_eq!(found(&root, "bar-1"), [""; 0]);
        // This module was added by hand, and its name differs from the name of its directory.
        root.source("odd", "1");
        add(&root, "even/9", "odd-1");
        assert_eq!(found(&root, "odd"), [""; 0]);
        assert_eq!(found(&root, "even"), ["even/9"]);
    }
}

//! Evaluates conflicts, replacements and dependencies between packages.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use alpm::{Dep, DepModVer, Pkg, Ver};

use crate::database::{Listed, readable};

/// Returns the names of the installed packages that `package` conflicts with. If `replaces` is
/// true, also returns the packages that `package` replaces; pacman replaces packages only in an
/// upgrade of the system.
pub fn removed_by(package: &Pkg, installed: &[Listed<'_>], replaces: bool) -> BTreeSet<String> {
    let is_removed = |other: &&Listed<'_>| {
        let relation = || {
            let other: &Pkg = other.package;
            other.name() != package.name()
                && (package.conflicts().iter().any(|dep| provides(other, dep))
                    || other.conflicts().iter().any(|dep| provides(package, dep))
                    || replaces && package.replaces().iter().any(|dep| is_named(other, dep)))
        };
        readable(relation).unwrap_or(false)
    };
    installed.iter().filter(is_removed).map(|other| other.name.to_owned()).collect()
}

/// Returns true if `dependent` is a different package and depends on exactly this version of
/// `package`.
pub fn is_bound_to(dependent: &Pkg, package: &Pkg) -> bool {
    let is_bound = || {
        let is_exact = |dep: &Dep| matches!(dep.depmodver(), DepModVer::Eq(_));
        dependent.name() != package.name()
            && dependent.depends().iter().any(|dep| is_exact(dep) && is_named(package, dep))
    };
    readable(is_bound).unwrap_or(false)
}

/// Returns true if the name and version of `package` satisfy `dep`.
fn is_named(package: &Pkg, dep: &Dep) -> bool {
    package.name() == dep.name() && is_in_range(package.version(), dep.depmodver())
}

/// Returns true if `package`, or something that it provides, satisfies `dep`. A provision without a
/// version satisfies only a `dep` without a version, as in libalpm.
fn provides(package: &Pkg, dep: &Dep) -> bool {
    let satisfies = |provision: &Dep| {
        provision.name() == dep.name()
            && match (provision.depmodver(), dep.depmodver()) {
                (_, DepModVer::Any) => true,
                (DepModVer::Eq(version), range) => is_in_range(version, range),
                _ => false,
            }
    };
    is_named(package, dep) || package.provides().iter().any(satisfies)
}

/// Returns true if `version` is in `range`. A range without a pkgrel contains all releases of its
/// version.
fn is_in_range(version: &Ver, range: DepModVer<'_>) -> bool {
    match range {
        DepModVer::Any => true,
        DepModVer::Eq(other) => version.vercmp(other) == Ordering::Equal,
        DepModVer::Ge(other) => version.vercmp(other) != Ordering::Less,
        DepModVer::Le(other) => version.vercmp(other) != Ordering::Greater,
        DepModVer::Gt(other) => version.vercmp(other) == Ordering::Greater,
        DepModVer::Lt(other) => version.vercmp(other) == Ordering::Less,
    }
}

//! The directives of a dkms.conf (dkms-behaviour 3.2, 3.3).

/// Directives whose index is that of a record, and which make a record exist.
pub(super) const OF_RECORDS: [&str; 4] =
    ["BUILT_MODULE_NAME", "BUILT_MODULE_LOCATION", "DEST_MODULE_NAME", "DEST_MODULE_LOCATION"];

/// Every directive that is read from a conf; the deprecated ones only for the warning.
pub(super) const ALL: [&str; 33] = [
    "PACKAGE_NAME",
    "PACKAGE_VERSION",
    "BUILT_MODULE_NAME",
    "BUILT_MODULE_LOCATION",
    "DEST_MODULE_NAME",
    "DEST_MODULE_LOCATION",
    "STRIP",
    "MAKE",
    "MAKE_MATCH",
    "PATCH",
    "PATCH_MATCH",
    "AUTOINSTALL",
    "NO_WEAK_MODULES",
    "BUILD_DEPENDS",
    "BUILD_DEPENDS_REBUILD",
    "BUILD_EXCLUSIVE_KERNEL",
    "BUILD_EXCLUSIVE_KERNEL_MIN",
    "BUILD_EXCLUSIVE_KERNEL_MAX",
    "BUILD_EXCLUSIVE_ARCH",
    "BUILD_EXCLUSIVE_CONFIG",
    "POST_ADD",
    "PRE_BUILD",
    "POST_BUILD",
    "PRE_INSTALL",
    "POST_INSTALL",
    "POST_REMOVE",
    "OBSOLETE_BY",
    "CLEAN",
    "REMAKE_INITRD",
    "MODULES_CONF",
    "MODULES_CONF_OBSOLETES",
    "MODULES_CONF_ALIAS_TYPE",
    "MODULES_CONF_OBSOLETE_ONLY",
];

/// The deprecated ones; all but OBSOLETE_BY have no effect.
pub(super) const DEPRECATED: [&str; 7] = [
    "CLEAN",
    "REMAKE_INITRD",
    "MODULES_CONF",
    "MODULES_CONF_OBSOLETES",
    "MODULES_CONF_ALIAS_TYPE",
    "MODULES_CONF_OBSOLETE_ONLY",
    "OBSOLETE_BY",
];

/// Returns true if a name is a directive.
pub(crate) fn is_known(name: &str) -> bool {
    ALL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_man_page_lists_these_and_no_others() {
        let page = include_str!("../../../../man/dkms.conf.5");
        let entries = page.lines().filter_map(|line| line.strip_prefix(".It Ic "));
        let listed = entries.flat_map(|entry| entry.split(" , "));
        let mut listed: Vec<&str> = listed.map(|name| name.trim_end_matches(" Ns Bq #")).collect();
        let mut known = ALL.to_vec();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}

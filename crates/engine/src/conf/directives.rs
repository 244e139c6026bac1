//! The directives of a dkms.conf (dkms-behaviour 3.2, 3.3).

/// The directives whose highest index determines the number of records in a conf.
pub(crate) const OF_RECORDS: [&str; 4] =
    ["BUILT_MODULE_NAME", "BUILT_MODULE_LOCATION", "DEST_MODULE_NAME", "DEST_MODULE_LOCATION"];

/// The directives that are read from a conf, including the deprecated ones.
pub(crate) const ALL: [&str; 33] = [
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

/// The deprecated directives. Only OBSOLETE_BY still has an effect.
pub(super) const DEPRECATED: [&str; 7] = [
    "CLEAN",
    "REMAKE_INITRD",
    "MODULES_CONF",
    "MODULES_CONF_OBSOLETES",
    "MODULES_CONF_ALIAS_TYPE",
    "MODULES_CONF_OBSOLETE_ONLY",
    "OBSOLETE_BY",
];

/// Returns true if `name` is the name of a directive.
pub(crate) fn is_known(name: &str) -> bool {
    ALL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_page_lists_exactly_the_known_directives() {
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

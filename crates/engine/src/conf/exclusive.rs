//! The BUILD_EXCLUSIVE_* directives, which restrict a module to certain kernels (dkms-behaviour
//! 3.6).

use std::fmt;

use super::Values;
use super::pattern::found;
use crate::machine::KernelConfig;
use crate::names::{Arch, KernelRelease};
use crate::version;

/// The reason why a record is excluded, such as "BUILD_EXCLUSIVE_KERNEL_MAX is 6.12".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why(String);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The objects that a conf excludes for one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// For each object that the conf names, the reason why it is excluded, or `None` if it is not.
    pub records: Vec<Option<Why>>,
}

impl Excluded {
    /// Returns the reason for the first object if all objects are excluded. Returns `None` if at
    /// least one object is not excluded or if the conf names no objects.
    #[must_use]
    pub fn whole(&self) -> Option<&Why> {
        if self.records.iter().any(Option::is_none) { None } else { self.records.first()?.as_ref() }
    }
}

/// The BUILD_EXCLUSIVE_* values at one index. The values at index 0 apply to the whole module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Restrictions {
    kernel: Option<String>,
    kernel_min: Option<String>,
    kernel_max: Option<String>,
    /// The directive that sets `kernel_max`: BUILD_EXCLUSIVE_KERNEL_MAX or OBSOLETE_BY.
    kernel_max_from: &'static str,
    arch: Option<String>,
    config: Option<String>,
}

impl Restrictions {
    pub(super) fn at(values: &Values, index: usize) -> Self {
        let text = |name| values.text(name, index).map(str::to_owned);
        let mut restrictions = Self {
            kernel: text("BUILD_EXCLUSIVE_KERNEL"),
            kernel_min: text("BUILD_EXCLUSIVE_KERNEL_MIN"),
            kernel_max: text("BUILD_EXCLUSIVE_KERNEL_MAX"),
            kernel_max_from: "BUILD_EXCLUSIVE_KERNEL_MAX",
            arch: text("BUILD_EXCLUSIVE_ARCH"),
            config: text("BUILD_EXCLUSIVE_CONFIG"),
        };
        let mut maxima = values.elements("BUILD_EXCLUSIVE_KERNEL_MAX");
        if index == 0 && maxima.all(|(_, text)| text.is_empty()) {
            restrictions.kernel_max = text("OBSOLETE_BY");
            restrictions.kernel_max_from = "OBSOLETE_BY";
        }
        restrictions
    }

    /// Returns true if BUILD_EXCLUSIVE_CONFIG is set.
    pub(super) fn needs_config(&self) -> bool {
        self.config.is_some()
    }

    /// Returns the first restriction that the kernel does not meet, or `None` if it meets all of
    /// them. Ignores BUILD_EXCLUSIVE_CONFIG if `config`, the kernel's configuration, is `None`.
    pub(super) fn unmet(
        &self,
        kernel: &KernelRelease,
        arch: &Arch,
        config: Option<&KernelConfig>,
    ) -> Option<Why> {
        let why = |name: &str, wanted: &str| {
            let wanted: Vec<_> = wanted.split_whitespace().collect();
            Some(Why(format!("{name} is {}", wanted.join(" "))))
        };
        let release = version::key(kernel.as_str());
        if let Some(pattern) = self.kernel.as_ref().filter(|p| !found(p, kernel.as_str())) {
            return why("BUILD_EXCLUSIVE_KERNEL", pattern);
        }
        if let Some(min) = self.kernel_min.as_ref().filter(|min| release < version::key(min)) {
            return why("BUILD_EXCLUSIVE_KERNEL_MIN", min);
        }
        if let Some(max) = self.kernel_max.as_ref().filter(|max| release > version::key(max)) {
            return why(self.kernel_max_from, max);
        }
        if let Some(pattern) = self.arch.as_ref().filter(|p| !found(p, arch.as_str())) {
            return why("BUILD_EXCLUSIVE_ARCH", pattern);
        }
        let (wanted, config) = (self.config.as_ref()?, config?);
        let unmet = wanted.split_whitespace().find(|option| !is_met(option, config))?;
        Some(Why(match unmet.strip_prefix('!') {
            Some(option) => format!("BUILD_EXCLUSIVE_CONFIG requires {option} to be disabled"),
            None => format!("BUILD_EXCLUSIVE_CONFIG requires {unmet} to be enabled"),
        }))
    }
}

/// Returns true if `config` enables `option`, such as `CONFIG_X`. If `option` is `!CONFIG_X`,
/// returns true if `config` does not enable `CONFIG_X`.
fn is_met(option: &str, config: &KernelConfig) -> bool {
    let has = |name| config.assigned(name).is_some_and(|value| value.starts_with(['y', 'm']));
    option.strip_prefix('!').map_or_else(|| has(option), |option| !has(option))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const CONFIG: &str = "# CONFIG_OFF is not set\nCONFIG_ON=y\nCONFIG_MOD=m\nCONFIG_NUM=12\n";

    #[rstest]
    #[case::nothing(&[], None)]
    #[case::empty(&[("KERNEL", "")], None)]
    #[case::kernel(&[("KERNEL", "^7.*-arch")], None)]
    #[case::other_kernel(&[("KERNEL", "lts$")], Some("BUILD_EXCLUSIVE_KERNEL is lts$"))]
    #[case::invalid_pattern(&[("KERNEL", "*")], Some("BUILD_EXCLUSIVE_KERNEL is *"))]
    #[case::min(&[("KERNEL_MIN", "7.2")], None)]
    #[case::min_too_high(&[("KERNEL_MIN", "7.10")], Some("BUILD_EXCLUSIVE_KERNEL_MIN is 7.10"))]
    #[case::max(&[("KERNEL_MAX", "7.3")], None)]
    #[case::max_too_low(&[("KERNEL_MAX", "7.2")], Some("BUILD_EXCLUSIVE_KERNEL_MAX is 7.2"))]
    #[case::arch(&[("ARCH", "(x86_64|aarch64)")], None)]
    #[case::other_arch(&[("ARCH", "^arm")], Some("BUILD_EXCLUSIVE_ARCH is ^arm"))]
    #[case::config(&[("CONFIG", "CONFIG_ON CONFIG_MOD !CONFIG_OFF")], None)]
    #[case::config_off(
        &[("CONFIG", "CONFIG_ON  CONFIG_OFF")],
        Some("BUILD_EXCLUSIVE_CONFIG requires CONFIG_OFF to be enabled")
    )]
    #[case::config_on(
        &[("CONFIG", "!CONFIG_MOD")],
        Some("BUILD_EXCLUSIVE_CONFIG requires CONFIG_MOD to be disabled")
    )]
    #[case::config_number(
        &[("CONFIG", "CONFIG_NUM")],
        Some("BUILD_EXCLUSIVE_CONFIG requires CONFIG_NUM to be enabled")
    )]
    #[case::config_prefix(
        &[("CONFIG", "CONFIG_O")],
        Some("BUILD_EXCLUSIVE_CONFIG requires CONFIG_O to be enabled")
    )]
    fn finds_the_unmet_restriction(#[case] set: &[(&str, &str)], #[case] want: Option<&str>) {
        let mut values = Values::default();
        for (name, text) in set {
            values.set(&format!("BUILD_EXCLUSIVE_{name}"), 3, *text);
        }
        let kernel = "7.2.12-arch1-1".parse().unwrap();
        let config = KernelConfig::of(CONFIG);
        let unmet =
            Restrictions::at(&values, 3).unmet(&kernel, &"x86_64".parse().unwrap(), Some(&config));
        assert_eq!(unmet.map(|why| why.to_string()).as_deref(), want);
    }

    #[test]
    fn ignores_config_restrictions_without_a_configuration() {
        let mut values = Values::default();
        values.set("BUILD_EXCLUSIVE_CONFIG", 0, "CONFIG_OFF");
        let (kernel, arch) = ("7.2".parse().unwrap(), "x86_64".parse().unwrap());
        assert_eq!(Restrictions::at(&values, 0).unmet(&kernel, &arch, None), None);
    }

    #[test]
    fn obsolete_by_is_the_maximum_if_no_maximum_is_set() {
        let mut values = Values::default();
        values.set("OBSOLETE_BY", 0, "6.12");
        let (kernel, arch) = ("7.2".parse().unwrap(), "x86_64".parse().unwrap());
        let why = Restrictions::at(&values, 0).unmet(&kernel, &arch, None).unwrap();
        assert_eq!(why.to_string(), "OBSOLETE_BY is 6.12");
        assert_eq!(Restrictions::at(&values, 1).unmet(&kernel, &arch, None), None);
        values.set("BUILD_EXCLUSIVE_KERNEL_MAX", 5, "8");
        assert_eq!(Restrictions::at(&values, 0).unmet(&kernel, &arch, None), None);
    }
}

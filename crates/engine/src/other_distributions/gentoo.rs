//! Finds the key and the certificate with which Gentoo's Portage signs modules.

use std::fs;
use std::path::Path;

use crate::machine::{Kernel, Machine};

/// Returns the paths of the private key and the certificate, each `None` if it is not configured.
///
/// Checks the environment first, then Portage's settings, then the kernel's configuration.
pub(crate) fn portage_keys(machine: &Machine, kernel: &Kernel) -> (Option<String>, Option<String>) {
    let settings = fs::read_to_string(machine.trees.inside(Path::new("/etc/portage/make.conf")))
        .unwrap_or_default();
    let set = |name: &str| {
        let of_caller = machine.env.get(name).map(|value| value.to_string_lossy().into_owned());
        let in_settings = || {
            let value =
                |line: &str| line.trim().strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            let value = settings.lines().filter_map(value).next_back()?;
            Some(value.trim().trim_matches(['"', '\'']).to_owned())
        };
        of_caller.or_else(in_settings).filter(|value| !value.is_empty())
    };
    let of_kernel = || {
        let config = machine.kernel_config(kernel)?;
        let key = config.value("CONFIG_MODULE_SIG_KEY").filter(|key| !key.is_empty())?;
        Some(kernel.headers.as_ref()?.join(key).to_string_lossy().into_owned())
    };
    let key = set("MODULES_SIGN_KEY").or_else(of_kernel);
    (key.clone(), set("MODULES_SIGN_CERT").or(key))
}

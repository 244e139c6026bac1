//! What was typed: the command line, word for word.

use std::path::PathBuf;

use clap::Parser;

const COMMANDS: &str = "\
Commands:
  add          register a module whose source is in /usr/src
  build        compile a module for a kernel (adds it if need be)
  install      place a module for a kernel (adds and builds it if need be)
  uninstall    take a module out of a kernel, keep what was built
  unbuild      forget what was built for a kernel, uninstalling it first
  remove       forget a module, uninstalling and unbuilding it first
  autoinstall  install every willing module for a kernel
  status       list modules and what is built and installed of them

A module is named as foo/1.0, or as -m foo -v 1.0. Without -k the running kernel is meant.";

/// The words of one command line. [`crate::wanted`] says what they mean.
///
/// dkms takes its command, the module and the options in any order, so this is flat.
#[derive(Debug, Default, Parser)]
#[command(
    name = "dkms",
    about = "Build kernel modules from source for every kernel, and install them.",
    override_usage = "dkms [OPTIONS] COMMAND [MODULE/VERSION]",
    after_help = COMMANDS,
    disable_version_flag = true
)]
pub struct Typed {
    /// The command, and the module as MODULE/VERSION
    #[arg(value_name = "WORD", hide = true)]
    pub words: Vec<String>,

    /// The module, or MODULE/VERSION
    #[arg(short, long, value_name = "MODULE")]
    pub module: Option<String>,

    /// The module's version
    #[arg(short = 'v', value_name = "VERSION")]
    pub version: Option<String>,

    /// The kernel release, or RELEASE/ARCH; may be repeated
    #[arg(short, long = "kernelver", alias = "kernelversion", value_name = "RELEASE")]
    pub kernel: Vec<String>,

    /// The architecture; may be repeated, one for each kernel
    #[arg(short, long, value_name = "ARCH")]
    pub arch: Vec<String>,

    /// All kernels that the module is built for
    #[arg(long)]
    pub all: bool,

    /// Do it even if it is done, or if something speaks against it
    #[arg(long)]
    pub force: bool,

    /// Leave modules.dep as it is
    #[arg(long)]
    pub no_depmod: bool,

    /// Say what would be done and why, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// How many jobs run at a time; 0 for one for each processor
    #[arg(short, value_name = "NUMBER")]
    pub jobs: Option<usize>,

    /// Print the compilers' output and the commands that are run
    #[arg(long)]
    pub verbose: bool,

    /// Print nothing
    #[arg(short, long)]
    pub quiet: bool,

    /// status: print JSON
    #[arg(long)]
    pub json: bool,

    /// autoinstall: only finish what an interrupted run left to do
    #[arg(long, hide = true)]
    pub debts: bool,

    /// Work on the machine whose / is at DIR
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// Print the version
    #[arg(short = 'V', long = "version")]
    pub print_version: bool,

    /// Options of dkms that are still to come.
    #[command(flatten)]
    pub later: Later,
}

/// Options that dkms has and this does not have yet: taken, so that it can say so.
#[derive(Debug, Default, clap::Args)]
pub struct Later {
    #[arg(short = 'c', hide = true)]
    conf: Option<String>,
    #[arg(long, hide = true)]
    config: Option<String>,
    #[arg(long, hide = true)]
    kernelsourcedir: Option<String>,
    #[arg(long, hide = true)]
    archive: Option<String>,
    #[arg(long, hide = true)]
    directive: Vec<String>,
    #[arg(long, hide = true)]
    templatekernel: Option<String>,
    #[arg(long, hide = true)]
    dkmstree: Option<String>,
    #[arg(long, hide = true)]
    sourcetree: Option<String>,
    #[arg(long, hide = true)]
    installtree: Option<String>,
    #[arg(long, hide = true)]
    force_version_override: bool,
    #[arg(long, hide = true)]
    binaries_only: bool,
    #[arg(long, hide = true)]
    source_only: bool,
    #[arg(long, hide = true)]
    modprobe_on_install: bool,
    #[arg(long, hide = true)]
    symlink_modules: bool,
    #[arg(long = "rpm_safe_upgrade", hide = true)]
    rpm_safe_upgrade: bool,
}

impl Later {
    /// The first of them that was given.
    #[must_use]
    pub fn given(&self) -> Option<&'static str> {
        let rows = [
            ("-c", self.conf.is_some()),
            ("--config", self.config.is_some()),
            ("--kernelsourcedir", self.kernelsourcedir.is_some()),
            ("--archive", self.archive.is_some()),
            ("--directive", !self.directive.is_empty()),
            ("--templatekernel", self.templatekernel.is_some()),
            ("--dkmstree", self.dkmstree.is_some()),
            ("--sourcetree", self.sourcetree.is_some()),
            ("--installtree", self.installtree.is_some()),
            ("--force-version-override", self.force_version_override),
            ("--binaries-only", self.binaries_only),
            ("--source-only", self.source_only),
            ("--modprobe-on-install", self.modprobe_on_install),
            ("--symlink-modules", self.symlink_modules),
            ("--rpm_safe_upgrade", self.rpm_safe_upgrade),
        ];
        rows.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_do_not_collide() {
        Typed::command().debug_assert();
    }
}

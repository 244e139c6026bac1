//! Running a generator.

use std::time::Duration;

use dkms_engine::machine::Machine;
use dkms_engine::os::process::{Environment, Program};

/// How long a generator may take: dracut on a slow disk with everything in it.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A command that regenerates images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its words.
    pub words: Vec<String>,
    /// What it reads: pacman's targets, where it is a hook's command.
    pub stdin: String,
}

impl Call {
    pub(crate) fn new(words: &[&str]) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect(), stdin: String::new() }
    }

    /// The command as one could type it.
    #[must_use]
    pub fn line(&self) -> String {
        let line = self.words.join(" ");
        if self.stdin.is_empty() {
            line
        } else {
            format!("echo {} | {line}", self.stdin.trim_end())
        }
    }

    /// Runs it from `/`, as libalpm does.
    ///
    /// # Errors
    /// A sentence with what it complained about, if it fails or cannot be started.
    pub(crate) fn run(&self, machine: &Machine) -> Result<(), String> {
        let Some((program, args)) = self.words.split_first() else { return Ok(()) };
        let env = Environment::fixed();
        let ended = Program::new(program, &env)
            .args(args)
            .cwd("/")
            .stdin(self.stdin.as_bytes())
            .deadline(PATIENCE)
            .confined(&machine.tools)
            .run()
            .map_err(|error| error.to_string())?;
        if ended.success() {
            return Ok(());
        }
        let why = reason(&ended.complaint()).map(|line| format!(": {line}")).unwrap_or_default();
        Err(format!("{} failed ({}){why}", self.line(), ended.how))
    }
}

/// The line of a complaint that says most: the first that speaks of an error, dracut's own (`dracut[E]: …`,
/// `dracut[F]: …`) before those of what it calls, or else the last.
fn reason(complaint: &str) -> Option<&str> {
    let of_dracut =
        |line: &&str| line.starts_with("dracut[E]: ") || line.starts_with("dracut[F]: ");
    let names_error = |line: &&str| line.to_ascii_lowercase().contains("error:");
    let line = complaint.lines().find(of_dracut).or_else(|| complaint.lines().find(names_error));
    Some(line.or_else(|| complaint.lines().last())?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_says_most() {
        let complaint = "  -> Running build hook: [zfs]\n==> ERROR: module not found: 'zfs'\n\
                         ==> WARNING: errors were encountered during the build.\n";
        assert_eq!(reason(complaint), Some("==> ERROR: module not found: 'zfs'"));
        let complaint = "libkmod: ERROR: no /proc/modules\ndracut[W]: hm\ndracut[E]: no such compressor\n\
                         dracut[F]: failed\n";
        assert_eq!(reason(complaint), Some("dracut[E]: no such compressor"));
        assert_eq!(reason("one\n two \n"), Some("two"));
        assert_eq!(reason(""), None);
    }

    #[test]
    fn a_call_can_be_typed() {
        assert_eq!(Call::new(&["mkinitcpio", "-p", "linux"]).line(), "mkinitcpio -p linux");
        let hook =
            Call { stdin: "usr/lib/modules/7.2/vmlinuz\n".into(), ..Call::new(&["/x", "install"]) };
        assert_eq!(hook.line(), "echo usr/lib/modules/7.2/vmlinuz | /x install");
    }
}

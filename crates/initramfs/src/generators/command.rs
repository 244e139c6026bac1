//! Commands that regenerate images, and running them.

use std::time::Duration;

use dkms_engine::machine::Machine;
use dkms_engine::os::process::{Environment, Program};

/// The time limit of a generator: dracut on a slow disk with everything in the image.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A command that regenerates images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GeneratorCommand {
    /// The program and its arguments.
    pub(super) words: Vec<String>,
    /// The input: pacman's targets, if it is the command of a hook.
    pub(super) stdin: String,
}

impl GeneratorCommand {
    pub(crate) fn new(words: &[&str]) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect(), stdin: String::new() }
    }

    /// Returns the command as you would type it.
    pub(crate) fn line(&self) -> String {
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
    /// A sentence with the reason if it fails or cannot be started.
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

/// Returns the most informative line of the error output: the first error, dracut's own (`dracut[E]: …`, `dracut[F]: …`)
/// before those of the programs that it runs, or else the last line.
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
    fn a_command_can_be_typed() {
        assert_eq!(
            GeneratorCommand::new(&["mkinitcpio", "-p", "linux"]).line(),
            "mkinitcpio -p linux"
        );
        let hook = GeneratorCommand {
            stdin: "usr/lib/modules/7.2/vmlinuz\n".into(),
            ..GeneratorCommand::new(&["/x", "install"])
        };
        assert_eq!(hook.line(), "echo usr/lib/modules/7.2/vmlinuz | /x install");
    }
}

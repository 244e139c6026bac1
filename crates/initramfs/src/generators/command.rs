//! Runs the commands that regenerate images.

use std::time::Duration;

use dkms_engine::os::process::{Environment, Program};

/// The time limit of one command, long enough for a full dracut image on a slow disk.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The messages of the C library for a full disk and an exceeded quota.
const NO_SPACE: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// The failure of a command that regenerates images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GeneratorFailure {
    /// The command and its error.
    pub(crate) why: String,
    /// The lines of output that name an error.
    pub(crate) errors: Vec<String>,
}

impl GeneratorFailure {
    /// Returns true if the disk was full. Any file may then be missing from an image, even if the
    /// image can be listed.
    pub(crate) fn lacks_space(&self) -> bool {
        self.errors.iter().any(|line| is_full(&line.as_str()))
    }
}

/// A command that regenerates images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GeneratorCommand {
    /// The program and its arguments.
    pub(super) words: Vec<String>,
    /// The standard input. For the command of a pacman hook, this is the hook's target; otherwise,
    /// it is empty.
    pub(super) stdin: String,
}

impl GeneratorCommand {
    pub(crate) fn new(words: &[&str]) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect(), stdin: String::new() }
    }

    /// Returns the command as a shell command line.
    pub(crate) fn line(&self) -> String {
        let line = self.words.join(" ");
        if self.stdin.is_empty() {
            line
        } else {
            format!("echo {} | {line}", self.stdin.trim_end())
        }
    }

    /// Runs the command in `/`, as libalpm does.
    ///
    /// The command is not confined: a generator that was killed together with this process would
    /// leave a truncated image, and dracut would omit device nodes, as it does in any pid namespace
    /// or other container.
    ///
    /// # Errors
    /// [`GeneratorFailure`] if the command fails or cannot be started.
    pub(crate) fn run(&self) -> Result<(), GeneratorFailure> {
        let Some((program, args)) = self.words.split_first() else { return Ok(()) };
        let env = Environment::fixed();
        let ended = Program::new(program, &env)
            .args(args)
            .cwd("/")
            .stdin(self.stdin.as_bytes())
            .deadline(TIMEOUT)
            .run()
            .map_err(|error| GeneratorFailure { why: error.to_string(), errors: Vec::new() })?;
        if ended.success() {
            return Ok(());
        }
        let complaint = match String::from_utf8_lossy(&ended.errors) {
            errors if errors.trim().is_empty() => errors_in(&ended.complaint()).join("\n"),
            errors => errors.into_owned(),
        };
        let why = reason(&complaint).map(|line| format!(": {line}")).unwrap_or_default();
        Err(GeneratorFailure {
            why: format!("{} failed ({}){why}", self.line(), ended.how),
            errors: errors_in(&complaint).into_iter().map(str::to_owned).collect(),
        })
    }
}

/// Returns the most informative line of `complaint`, a command's error output.
///
/// Prefers an error about a full disk, then the first error of dracut itself (`dracut[E]: …`,
/// `dracut[F]: …`), then the first error of any program, then the last line. Returns `None` if
/// `complaint` is empty.
fn reason(complaint: &str) -> Option<&str> {
    let of_dracut =
        |line: &&str| line.starts_with("dracut[E]: ") || line.starts_with("dracut[F]: ");
    let line = complaint.lines().find(is_full);
    let line = line.or_else(|| complaint.lines().find(of_dracut));
    let line = line.or_else(|| complaint.lines().find(names_error));
    Some(line.or_else(|| complaint.lines().last())?.trim())
}

/// Returns the lines of `output` that name an error. The other lines explain nothing: the last one
/// of mkinitcpio may even report success.
fn errors_in(output: &str) -> Vec<&str> {
    output.lines().filter(|line| names_error(line) || is_full(line)).collect()
}

fn names_error(line: &&str) -> bool {
    line.to_ascii_lowercase().contains("error:")
}

fn is_full(line: &&str) -> bool {
    NO_SPACE.iter().any(|text| line.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_first_error() {
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
    fn only_errors_in_the_output_are_reasons() {
        let output = "==> Starting build\n==> ERROR: no such hook\n==> generation successful\n";
        assert_eq!(errors_in(output), ["==> ERROR: no such hook"]);
        assert_eq!(errors_in("==> generation successful\n"), [""; 0]);
    }

    #[test]
    fn prints_a_shell_command_line() {
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

//! `[initramfs] precise`: overrides mkinitcpio's pacman hook. The stock hook regenerates every
//! image whenever a `dkms.conf` changes.
//!
//! The override is a copy of the stock hook, but runs our program instead of the stock command. Our
//! program removes module sources from the targets and passes the other targets to the stock
//! command. If our program is missing, the override runs the stock command directly.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dkms_engine::machine::Machine;
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::os::process::{Environment, Program};
use serde::Deserialize;

use crate::generators::pacman_hook::{self, MARK, VERIFY_HOOK};
use crate::generators::{Generator, MKINITCPIO_HOOK as HOOK};

/// The directory of the override, which is the default directory of the administrator's hooks.
const DIR: &str = "etc/pacman.d/hooks";

/// The program that the override calls.
const OURS: &str = "/usr/lib/alpm-dkms/mkinitcpio-dkms";

/// The time limit of alpm-query.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The reason why the override could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// The administrator already has a file or a mask with this path.
    #[error(
        "[initramfs] precise is ignored: /{0} already exists; remove it or set precise = false"
    )]
    Taken(String),
    /// A package owns the path. The fields are the path and the package.
    #[error("[initramfs] precise is ignored: /{0} is owned by {1}; set precise = false")]
    Owned(String, String),
    /// alpm-query could not look up the owner of the path. The fields are the path and the reason.
    #[error("[initramfs] precise is not in effect yet: cannot look up the owner of /{0}: {1}")]
    NoAnswer(String, String),
    /// pacman does not read hooks from the override's directory.
    #[error(
        "[initramfs] precise is ignored: /{DIR} is not a HookDir in pacman.conf; set precise = false"
    )]
    NotRead,
    /// The stock hook has an unexpected format. The field is the path of the hook.
    #[error("[initramfs] precise is ignored: unrecognised format of /{0}; set precise = false")]
    Strange(String),
    /// The override cannot be written or removed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The change that [`update`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideChange {
    /// No change was necessary.
    Unchanged,
    /// The override was created, or updated after a change of the stock hook.
    Written,
    /// The override was removed.
    Removed,
}

/// Writes, updates or removes the override, as `[initramfs] precise` requires.
///
/// The override is removed if the setting is off, the generator is not mkinitcpio, or the stock
/// hook is not installed.
///
/// # Errors
/// [`OverrideError`] if the override could not be written or removed. The override is then
/// unchanged.
pub fn update(
    machine: &Machine,
    generator: Option<&Generator>,
) -> Result<OverrideChange, OverrideError> {
    update_unless_owned(machine, generator, &|path| owner(machine, path))
}

/// Returns the line of output for a result of [`update`]; `None` if nothing changed.
#[must_use]
pub fn message(updated: &Result<OverrideChange, OverrideError>) -> Option<String> {
    let file = format!("/{DIR}/{HOOK}");
    match updated {
        Ok(OverrideChange::Unchanged) => None,
        Ok(OverrideChange::Written) => {
            Some(format!("note: {file}: written: [initramfs] precise is in effect"))
        }
        Ok(OverrideChange::Removed) => {
            Some(format!("note: {file}: removed: [initramfs] precise is no longer in effect"))
        }
        Err(error) => Some(format!("warning: {error}")),
    }
}

fn update_unless_owned(
    machine: &Machine,
    generator: Option<&Generator>,
    owner: &dyn Fn(&str) -> Result<Option<String>, String>,
) -> Result<OverrideChange, OverrideError> {
    let root = &machine.trees.root;
    let (path, file) = (format!("{DIR}/{HOOK}"), file(root));
    let stock = fs::read_to_string(pacman_hook::shipped(root, HOOK));
    let wanted =
        machine.settings.initramfs.precise && generator.is_some_and(Generator::is_mkinitcpio);
    let Some(stock) = stock.ok().filter(|_| wanted) else {
        return Ok(if remove(root)? { OverrideChange::Removed } else { OverrideChange::Unchanged });
    };
    let text = text(&stock)
        .ok_or_else(|| OverrideError::Strange(format!("usr/share/libalpm/hooks/{HOOK}")))?;
    match existing(root) {
        Some(old) if old == text => return Ok(OverrideChange::Unchanged),
        Some(_) => {}
        None if file.symlink_metadata().is_ok() => return Err(OverrideError::Taken(path)),
        None => match owner(&path) {
            Ok(None) => {}
            Ok(Some(package)) => return Err(OverrideError::Owned(path, package)),
            Err(why) => return Err(OverrideError::NoAnswer(path, why)),
        },
    }
    if !pacman_hook::directories(root).contains(&root.join(DIR)) {
        return Err(OverrideError::NotRead);
    }
    durable::create_dirs(&root.join(DIR))?;
    durable::write(&file, text.as_bytes())?;
    Ok(OverrideChange::Written)
}

/// Removes the override. Returns false if it does not exist or was not written by alpm-dkms.
///
/// # Errors
/// [`FileError`] if the file cannot be removed.
pub fn remove(root: &Path) -> Result<bool, FileError> {
    if existing(root).is_none() {
        return Ok(false);
    }
    durable::remove_file_if_there(&file(root))
}

/// Returns true if our hook 95-dkms-verify is active and the generator is mkinitcpio.
///
/// 95-dkms-verify then regenerates the images that contain a changed module, so the stock command
/// does not have to.
#[must_use]
pub fn is_in_effect(machine: &Machine, generator: Option<&Generator>) -> bool {
    pacman_hook::is_active(&machine.trees.root, VERIFY_HOOK)
        && generator.is_some_and(Generator::is_mkinitcpio)
}

/// Returns the command of the stock hook, split into words; `None` if mkinitcpio is not installed.
#[must_use]
pub fn stock_command(root: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(pacman_hook::shipped(root, HOOK)).ok()?;
    pacman_hook::exec_line(&text)
}

fn file(root: &Path) -> PathBuf {
    root.join(DIR).join(HOOK)
}

/// Returns the text of the existing override; `None` if it does not exist or was not written by
/// alpm-dkms.
fn existing(root: &Path) -> Option<String> {
    fs::read_to_string(file(root)).ok().filter(|text| text.starts_with(MARK))
}

/// Returns the text of the override for the stock hook with the text `stock`. Returns `None` if the
/// stock hook's command contains special characters or does not read targets.
fn text(stock: &str) -> Option<String> {
    let words = pacman_hook::exec_line(stock)?;
    // Other characters would need quoting for both libalpm and the shell.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+".contains(c);
    if !words.iter().all(|word| word.chars().all(is_plain)) || !stock.contains("NeedsTargets") {
        return None;
    }
    let words = words.join(" ");
    let exec = format!(
        "Exec = /bin/sh -c 'if [ -x {OURS} ]; then exec {OURS} --precise; else exec {words}; fi'"
    );
    let lines =
        stock.lines().map(|line| if pacman_hook::is_exec(line) { exec.as_str() } else { line });
    let lines = lines.collect::<Vec<_>>().join("\n");
    Some(format!(
        "{MARK}; removed with that setting or with alpm-dkms.\n\
         # Overrides the hook with the same name in /usr/share/libalpm/hooks: a changed dkms.conf no longer\n\
         # regenerates every image, because 95-dkms-verify regenerates those that contain the module.\n{lines}\n"
    ))
}

/// Returns the name of the package that owns `path`; `None` if no package owns it. The file need
/// not exist.
fn owner(machine: &Machine, path: &str) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    #[derive(Deserialize)]
    struct Answer {
        owners: BTreeMap<String, Option<Package>>,
    }
    let ended = Program::new(Path::new(OURS).with_file_name("alpm-query"), &Environment::fixed())
        .arg("--root")
        .arg(&machine.trees.root)
        .args(["owner", path])
        .deadline(TIMEOUT)
        .run()
        .map_err(|error| error.to_string())?;
    if !ended.success() {
        return Err(format!("alpm-query: {}: {}", ended.how, ended.complaint().trim()));
    }
    let mut answer: Answer =
        serde_json::from_slice(&ended.output).map_err(|error| format!("alpm-query: {error}"))?;
    Ok(answer.owners.remove(path).flatten().map(|package| package.name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const STOCK: &str = "[Trigger]\nType = Path\nTarget = usr/src/*/dkms.conf\n\n[Action]\n\
                         Exec = /usr/share/libalpm/scripts/mkinitcpio install\nNeedsTargets\n";
    const STOCK_FILE: &str = "usr/share/libalpm/hooks/90-mkinitcpio-install.hook";

    /// Returns a machine with mkinitcpio, a stock hook with the text `stock`, and `precise = true`.
    fn test_machine(stock: &str) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [(STOCK_FILE, stock), ("usr/bin/mkinitcpio", "")] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let mut machine = Machine::for_hook(root.path());
        machine.settings.initramfs.precise = true;
        (root, machine)
    }

    fn updated(
        machine: &Machine,
        owner: &dyn Fn(&str) -> Result<Option<String>, String>,
    ) -> Result<OverrideChange, OverrideError> {
        update_unless_owned(machine, Generator::detect(machine).as_ref(), owner)
    }

    fn unowned(_: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    #[test]
    fn writes_the_stock_hook_with_our_command() {
        let (root, machine) = test_machine(STOCK);
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Written);
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Unchanged);
        let written = fs::read_to_string(file(root.path())).unwrap();
        assert!(written.contains("\nTarget = usr/src/*/dkms.conf\n"), "{written}");
        let words = pacman_hook::exec_line(&written).unwrap();
        assert_eq!(words[..2], ["/bin/sh", "-c"]);
        assert!(words[2].ends_with("else exec /usr/share/libalpm/scripts/mkinitcpio install; fi"));
        // Our program looks up the stock command.
        let stock = ["/usr/share/libalpm/scripts/mkinitcpio", "install"];
        assert_eq!(pacman_hook::exec(root.path(), HOOK).unwrap(), stock);
        assert!(pacman_hook::is_active(root.path(), HOOK));
    }

    #[test]
    fn is_updated_with_the_stock_hook_and_removed_with_the_setting() {
        let (root, mut machine) = test_machine(STOCK);
        updated(&machine, &unowned).unwrap();
        fs::write(root.path().join(STOCK_FILE), STOCK.replace("usr/src", "usr/new")).unwrap();
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Written);
        assert!(fs::read_to_string(file(root.path())).unwrap().contains("usr/new"));
        machine.settings.initramfs.precise = false;
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Removed);
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Unchanged);
        assert!(!file(root.path()).exists());
        // Without the stock hook, the override would have no command to run.
        machine.settings.initramfs.precise = true;
        updated(&machine, &unowned).unwrap();
        fs::remove_file(root.path().join(STOCK_FILE)).unwrap();
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Removed);
    }

    #[test]
    fn does_not_replace_a_file_of_a_package_or_the_administrator() {
        let (root, machine) = test_machine(STOCK);
        let owned = updated(&machine, &|_| Ok(Some("limine-hook".into()))).unwrap_err();
        assert!(matches!(&owned, OverrideError::Owned(_, package) if package == "limine-hook"));
        let unknown = updated(&machine, &|_| Err("no libalpm".into())).unwrap_err();
        assert!(matches!(unknown, OverrideError::NoAnswer(..)));
        fs::create_dir_all(root.path().join(DIR)).unwrap();
        symlink("/dev/null", file(root.path())).unwrap();
        let taken = updated(&machine, &unowned).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "[initramfs] precise is ignored: /etc/pacman.d/hooks/90-mkinitcpio-install.hook already exists; \
             remove it or set precise = false"
        );
        assert!(!remove(root.path()).unwrap());
        assert!(file(root.path()).symlink_metadata().is_ok());
    }

    #[test]
    fn writes_no_override_for_an_unknown_stock_hook() {
        for strange in
            [STOCK.replace("install\n", "'in stall'\n"), STOCK.replace("NeedsTargets", "")]
        {
            let (root, machine) = test_machine(&strange);
            assert!(matches!(updated(&machine, &unowned), Err(OverrideError::Strange(_))));
            assert!(!file(root.path()).exists());
        }
        let (root, machine) = test_machine(STOCK);
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/pacman.conf"), "HookDir = /opt/hooks\n").unwrap();
        assert!(matches!(updated(&machine, &unowned), Err(OverrideError::NotRead)));
    }
}

//! `[initramfs] precise`: an override of mkinitcpio's pacman hook, which regenerates every image for any `dkms.conf`.
//!
//! The override is a copy of the stock hook with our command, which passes all other targets to the stock command. It
//! falls back to the stock command if our program is missing.

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

/// The directory for the administrator's hooks, which holds the override.
const DIR: &str = "etc/pacman.d/hooks";

/// The program that the override calls.
const OURS: &str = "/usr/lib/alpm-dkms/mkinitcpio-dkms";

/// The time limit of alpm-query.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reason why there is no override although the setting asks for one.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// Another file, or a mask, has the name.
    #[error(
        "[initramfs] precise is ignored: /{0} already exists; remove it or set precise = false"
    )]
    Taken(String),
    /// A package owns the file.
    #[error("[initramfs] precise is ignored: /{0} is owned by {1}; set precise = false")]
    Owned(String, String),
    /// The owner of the file is unknown.
    #[error("[initramfs] precise is not in effect yet: cannot look up the owner of /{0}: {1}")]
    NoAnswer(String, String),
    /// pacman does not read hooks in that directory.
    #[error(
        "[initramfs] precise is ignored: /{DIR} is not a HookDir in pacman.conf; set precise = false"
    )]
    NotRead,
    /// The stock hook has an unexpected form.
    #[error("[initramfs] precise is ignored: unrecognized format of /{0}; set precise = false")]
    Strange(String),
    /// The override cannot be written or removed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What [`update`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideChange {
    /// Nothing.
    Unchanged,
    /// It wrote the override, or updated it after the stock hook.
    Written,
    /// It removed the override.
    Removed,
}

/// Writes or removes the override, as the setting and the stock hook ask for.
///
/// # Errors
/// [`OverrideError`]; nothing has changed then.
pub fn update(
    machine: &Machine,
    generator: Option<&Generator>,
) -> Result<OverrideChange, OverrideError> {
    update_unless_owned(machine, generator, &|path| owner(machine, path))
}

/// Returns the line about an update; `None` if nothing changed.
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
    match ours(root) {
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

/// Removes the override. Returns false if it does not exist or is not ours.
///
/// # Errors
/// [`FileError`] if it cannot be removed.
pub fn remove(root: &Path) -> Result<bool, FileError> {
    if ours(root).is_none() {
        return Ok(false);
    }
    durable::remove_file_if_there(&file(root))
}

/// Returns true if our own hook will regenerate the images that hold a changed module, so that the stock command need
/// not: it is active, and the generator is mkinitcpio.
#[must_use]
pub fn is_in_effect(machine: &Machine, generator: Option<&Generator>) -> bool {
    pacman_hook::is_active(&machine.trees.root, VERIFY_HOOK)
        && generator.is_some_and(Generator::is_mkinitcpio)
}

/// Returns the command of the stock hook, as words; `None` if mkinitcpio is not installed.
#[must_use]
pub fn stock_command(root: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(pacman_hook::shipped(root, HOOK)).ok()?;
    pacman_hook::exec_line(&text)
}

fn file(root: &Path) -> PathBuf {
    root.join(DIR).join(HOOK)
}

/// Returns the text of the override; `None` if the file is not ours.
fn ours(root: &Path) -> Option<String> {
    fs::read_to_string(file(root)).ok().filter(|text| text.starts_with(MARK))
}

/// Returns the override of this stock hook; `None` if its command has other than plain words or does not get its targets.
fn text(stock: &str) -> Option<String> {
    let words = pacman_hook::exec_line(stock)?;
    // Quotes within quotes, libalpm's and the shell's, are error-prone.
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
        "{MARK}: it takes the place of the hook of that name in\n\
         # /usr/share/libalpm/hooks, and goes when that setting does, or with alpm-dkms. A dkms.conf among the targets\n\
         # does not regenerate all images here: 95-dkms-verify regenerates those that hold the module.\n{lines}\n"
    ))
}

/// Returns the package that owns a path, even if no file exists there.
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
        .deadline(PATIENCE)
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

    /// Returns a machine with mkinitcpio, this stock hook, and the setting.
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
    fn the_override_is_the_stock_hook_with_our_command() {
        let (root, machine) = test_machine(STOCK);
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Written);
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Unchanged);
        let written = fs::read_to_string(file(root.path())).unwrap();
        assert!(written.contains("\nTarget = usr/src/*/dkms.conf\n"), "{written}");
        let words = pacman_hook::exec_line(&written).unwrap();
        assert_eq!(words[..2], ["/bin/sh", "-c"]);
        assert!(words[2].ends_with("else exec /usr/share/libalpm/scripts/mkinitcpio install; fi"));
        // Our program runs the stock command.
        let stock = ["/usr/share/libalpm/scripts/mkinitcpio", "install"];
        assert_eq!(pacman_hook::exec(root.path(), HOOK).unwrap(), stock);
        assert!(pacman_hook::is_active(root.path(), HOOK));
    }

    #[test]
    fn it_follows_the_stock_hook_and_the_setting() {
        let (root, mut machine) = test_machine(STOCK);
        updated(&machine, &unowned).unwrap();
        fs::write(root.path().join(STOCK_FILE), STOCK.replace("usr/src", "usr/new")).unwrap();
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Written);
        assert!(fs::read_to_string(file(root.path())).unwrap().contains("usr/new"));
        machine.settings.initramfs.precise = false;
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Removed);
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Unchanged);
        assert!(!file(root.path()).exists());
        // Without the stock hook it would have no command to run.
        machine.settings.initramfs.precise = true;
        updated(&machine, &unowned).unwrap();
        fs::remove_file(root.path().join(STOCK_FILE)).unwrap();
        assert_eq!(updated(&machine, &unowned).unwrap(), OverrideChange::Removed);
    }

    #[test]
    fn a_file_of_a_package_or_of_the_administrator_stays() {
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
    fn no_override_is_written_for_an_unknown_stock_hook() {
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

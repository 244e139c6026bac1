//! `[initramfs] precise`: an override of mkinitcpio's pacman hook, which regenerates every image for any `dkms.conf`.
//!
//! Hooks are files: the override is a copy of the stock one with another command, ours, which hands the stock command
//! all targets but these. It falls back to the stock command where ours is missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dkms_engine::machine::Machine;
use dkms_engine::os::durable::{self, FileError};
use dkms_engine::os::process::{Environment, Program};
use serde::Deserialize;

use crate::generators::Generator;
use crate::generators::mkinitcpio::HOOK;
use crate::generators::pacman_hook::{self, MARK, VERIFY};

/// Where administrators put hooks, and the override stands.
const DIR: &str = "etc/pacman.d/hooks";

/// The program that the override calls.
const OURS: &str = "/usr/lib/alpm-dkms/mkinitcpio-dkms";

/// How long alpm-query may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no override although the setting asks for one.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Somebody else's file, or a mask, stands there.
    #[error(
        "[initramfs] precise has no effect: /{0} is there already: remove it, or unset precise"
    )]
    Taken(String),
    /// A package brings that file.
    #[error("[initramfs] precise has no effect: /{0} belongs to the package {1}: unset precise")]
    Owned(String, String),
    /// It is not known whose that path is.
    #[error("[initramfs] precise has no effect yet: whose /{0} is cannot be told: {1}")]
    NoAnswer(String, String),
    /// pacman would not read the override, or not this one.
    #[error(
        "[initramfs] precise has no effect: no HookDir of pacman.conf is /{DIR}: unset precise"
    )]
    NotRead,
    /// The stock hook is not as we know it.
    #[error(
        "[initramfs] precise has no effect: its command cannot be taken from /{0}: unset precise"
    )]
    Strange(String),
    /// It could not be written or removed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What [`keep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: all is as it should be.
    Same,
    /// The override was written, or written anew after the stock hook.
    Written,
    /// The override was removed.
    Removed,
}

/// Brings the override in line with the setting and with the stock hook.
///
/// # Errors
/// [`Refusal`]; nothing has changed then.
pub fn keep(machine: &Machine) -> Result<Kept, Refusal> {
    keep_unless(machine, &|path| owner(machine, path))
}

/// What a person should know of that; nothing if all was as it should be.
#[must_use]
pub fn said(kept: &Result<Kept, Refusal>) -> Option<String> {
    match kept {
        Ok(Kept::Same) => None,
        Ok(Kept::Written) => {
            Some(format!("/{DIR}/{HOOK} is written: [initramfs] precise holds from now on"))
        }
        Ok(Kept::Removed) => {
            Some(format!("/{DIR}/{HOOK} is removed: [initramfs] precise does not hold any more"))
        }
        Err(refusal) => Some(refusal.to_string()),
    }
}

fn keep_unless(
    machine: &Machine,
    owner: &dyn Fn(&str) -> Result<Option<String>, String>,
) -> Result<Kept, Refusal> {
    let root = &machine.trees.root;
    let (path, file) = (format!("{DIR}/{HOOK}"), file(root));
    let stock = fs::read_to_string(pacman_hook::shipped(root, HOOK));
    let wanted =
        machine.settings.initramfs.precise && Generator::of(machine) == Some(Generator::Mkinitcpio);
    let Some(stock) = stock.ok().filter(|_| wanted) else {
        return Ok(if leave(root)? { Kept::Removed } else { Kept::Same });
    };
    let text =
        text(&stock).ok_or_else(|| Refusal::Strange(format!("usr/share/libalpm/hooks/{HOOK}")))?;
    match ours(root) {
        Some(old) if old == text => return Ok(Kept::Same),
        Some(_) => {}
        None if file.symlink_metadata().is_ok() => return Err(Refusal::Taken(path)),
        None => match owner(&path) {
            Ok(None) => {}
            Ok(Some(package)) => return Err(Refusal::Owned(path, package)),
            Err(why) => return Err(Refusal::NoAnswer(path, why)),
        },
    }
    if !pacman_hook::directories(root).contains(&root.join(DIR)) {
        return Err(Refusal::NotRead);
    }
    durable::create_dirs(&root.join(DIR))?;
    durable::write(&file, text.as_bytes())?;
    Ok(Kept::Written)
}

/// Removes the override, if it is there and ours; tells whether it was.
///
/// # Errors
/// [`FileError`] if it stays.
pub fn leave(root: &Path) -> Result<bool, FileError> {
    if ours(root).is_none() {
        return Ok(false);
    }
    durable::remove_file_if_there(&file(root))
}

/// Whether somebody else looks after what a `dkms.conf` changes, so that the stock command need not: our own hook that
/// comes later, if it is not masked.
#[must_use]
pub fn is_looked_after(machine: &Machine) -> bool {
    pacman_hook::is_active(&machine.trees.root, VERIFY)
        && Generator::of(machine) == Some(Generator::Mkinitcpio)
}

/// The command of the stock hook, one word each; `None` if mkinitcpio is not there.
#[must_use]
pub fn stock_command(root: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(pacman_hook::shipped(root, HOOK)).ok()?;
    pacman_hook::exec_line(&text)
}

fn file(root: &Path) -> PathBuf {
    root.join(DIR).join(HOOK)
}

/// The override as it stands there; `None` if what stands there is not ours.
fn ours(root: &Path) -> Option<String> {
    fs::read_to_string(file(root)).ok().filter(|text| text.starts_with(MARK))
}

/// The override of this stock hook; `None` if its command is not plain words or is not told its targets.
fn text(stock: &str) -> Option<String> {
    let words = pacman_hook::exec_line(stock)?;
    // Quotes within quotes, libalpm's and the shell's, are asking for trouble.
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

/// The package that owns a path, even one where no file is.
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

    /// A machine with mkinitcpio and this stock hook, which asks for the override.
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

    fn nobody(_: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    #[test]
    fn the_override_is_the_stock_hook_with_our_command() {
        let (root, machine) = test_machine(STOCK);
        assert_eq!(keep_unless(&machine, &nobody).unwrap(), Kept::Written);
        assert_eq!(keep_unless(&machine, &nobody).unwrap(), Kept::Same);
        let written = fs::read_to_string(file(root.path())).unwrap();
        assert!(written.contains("\nTarget = usr/src/*/dkms.conf\n"), "{written}");
        let words = pacman_hook::exec_line(&written).unwrap();
        assert_eq!(words[..2], ["/bin/sh", "-c"]);
        assert!(words[2].ends_with("else exec /usr/share/libalpm/scripts/mkinitcpio install; fi"));
        // What we call ourselves is the stock command.
        let stock = ["/usr/share/libalpm/scripts/mkinitcpio", "install"];
        assert_eq!(pacman_hook::exec(root.path(), HOOK).unwrap(), stock);
        assert!(pacman_hook::is_active(root.path(), HOOK));
    }

    #[test]
    fn it_follows_the_stock_hook_and_the_setting() {
        let (root, mut machine) = test_machine(STOCK);
        keep_unless(&machine, &nobody).unwrap();
        fs::write(root.path().join(STOCK_FILE), STOCK.replace("usr/src", "usr/new")).unwrap();
        assert_eq!(keep_unless(&machine, &nobody).unwrap(), Kept::Written);
        assert!(fs::read_to_string(file(root.path())).unwrap().contains("usr/new"));
        machine.settings.initramfs.precise = false;
        assert_eq!(keep_unless(&machine, &nobody).unwrap(), Kept::Removed);
        assert_eq!(keep_unless(&machine, &nobody).unwrap(), Kept::Same);
        assert!(!file(root.path()).exists());
        // Without the stock hook it would call nothing.
        machine.settings.initramfs.precise = true;
        keep_unless(&machine, &nobody).unwrap();
        fs::remove_file(root.path().join(STOCK_FILE)).unwrap();
        assert_eq!(keep_unless(&machine, &nobody).unwrap(), Kept::Removed);
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        let (root, machine) = test_machine(STOCK);
        let owned = keep_unless(&machine, &|_| Ok(Some("limine-hook".into()))).unwrap_err();
        assert!(matches!(&owned, Refusal::Owned(_, package) if package == "limine-hook"));
        let unknown = keep_unless(&machine, &|_| Err("no libalpm".into())).unwrap_err();
        assert!(matches!(unknown, Refusal::NoAnswer(..)));
        fs::create_dir_all(root.path().join(DIR)).unwrap();
        symlink("/dev/null", file(root.path())).unwrap();
        let taken = keep_unless(&machine, &nobody).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "[initramfs] precise has no effect: /etc/pacman.d/hooks/90-mkinitcpio-install.hook is there already: \
             remove it, or unset precise"
        );
        assert!(!leave(root.path()).unwrap());
        assert!(file(root.path()).symlink_metadata().is_ok());
    }

    #[test]
    fn a_hook_that_we_do_not_understand_stays_alone() {
        for strange in
            [STOCK.replace("install\n", "'in stall'\n"), STOCK.replace("NeedsTargets", "")]
        {
            let (root, machine) = test_machine(&strange);
            assert!(matches!(keep_unless(&machine, &nobody), Err(Refusal::Strange(_))));
            assert!(!file(root.path()).exists());
        }
        let (root, machine) = test_machine(STOCK);
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/pacman.conf"), "HookDir = /opt/hooks\n").unwrap();
        assert!(matches!(keep_unless(&machine, &nobody), Err(Refusal::NotRead)));
    }
}

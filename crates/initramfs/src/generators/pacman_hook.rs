//! Reads pacman's hook files as libalpm does, to find the hooks that regenerate images.

use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::machine::Kernel;
use dkms_engine::names::KernelRelease;
use dkms_engine::os::paths;

use super::command::GeneratorCommand;
use crate::image::Image;

/// The text at the start of our override of mkinitcpio's hook. It identifies the override as ours.
pub(crate) const MARK: &str = "# Written by alpm-dkms for `[initramfs] precise`";

/// Our hook that regenerates stale images after the generators' own hooks.
pub(crate) const VERIFY_HOOK: &str = "95-dkms-verify.hook";

/// Returns the path of a hook in the directory in which packages install hooks.
pub(crate) fn shipped(root: &Path, name: &str) -> PathBuf {
    root.join("usr/share/libalpm/hooks").join(name)
}

/// Returns pacman's hook directories. A file in a later directory overrides the file with the same
/// name in an earlier one (alpm-hooks(5), pacman.conf(5) `HookDir`).
pub(crate) fn directories(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.join("usr/share/libalpm/hooks")];
    let conf = fs::read_to_string(root.join("etc/pacman.conf")).unwrap_or_default();
    let named = conf.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "HookDir").then(|| root.join(value.trim().trim_start_matches('/')))
    });
    let before = all.len();
    all.extend(named);
    if all.len() == before {
        all.push(root.join("etc/pacman.d/hooks"));
    }
    all
}

/// Returns the command of the hook with the file name `name`, split into words. If that file is a
/// mask or our own override, returns the command of the hook that the file overrides. Returns
/// `None` if there is no such hook.
pub(crate) fn exec(root: &Path, name: &str) -> Option<Vec<String>> {
    let files: Vec<PathBuf> = directories(root).iter().rev().map(|dir| dir.join(name)).collect();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.filter(|text| !text.starts_with(MARK)).find_map(|text| exec_line(&text))
}

/// Returns the command of the hook `name`, which generates images and copies the kernel to /boot.
/// Also returns the remaining `images`, for which the generator must be called directly.
///
/// Returns no command if an image exists and every kernel file has the right release. Also returns
/// no command if the hook does not exist, or if its program cannot generate the images because the
/// kernel is not from a package.
pub(super) fn command_for_new<'a>(
    root: &Path,
    name: &str,
    kernel: &Kernel,
    images: &[&'a Image],
) -> (Option<GeneratorCommand>, Vec<&'a Image>) {
    let all_new = images.iter().all(|image| !image.below(root).exists());
    let copies_kernel = HookInEffect::of(root, name) == HookInEffect::Stock;
    let by_hook = |image: &&Image| all_new || (copies_kernel && image.other_kernel(root).is_some());
    let (by_hook, others): (Vec<&Image>, Vec<&Image>) = images.iter().copied().partition(by_hook);
    let words = exec(root, name).filter(|_| !by_hook.is_empty() && kernel.pkgbase.is_some());
    match words {
        Some(words) => {
            let stdin = kernel_target(root, name, &kernel.release);
            (Some(GeneratorCommand { words, stdin }), others)
        }
        None => (None, images.to_vec()),
    }
}

/// Returns the target that makes a hook's command generate the images of a kernel.
///
/// The target is `usr/lib/modules/<release>/vmlinuz`. If the hook's triggers name only `pkgbase`,
/// as in the ArchWiki article on dracut, the target is `usr/lib/modules/<release>/pkgbase`.
fn kernel_target(root: &Path, name: &str, release: &KernelRelease) -> String {
    let hook = directories(root)
        .iter()
        .rev()
        .find_map(|dir| fs::read_to_string(dir.join(name)).ok().filter(|text| !text.is_empty()));
    let hook = hook.unwrap_or_default();
    let triggers = |file: &str| {
        hook.lines().any(|line| line.trim_start().starts_with("Target") && line.ends_with(file))
    };
    let file = if triggers("/pkgbase") && !triggers("/vmlinuz") { "pkgbase" } else { "vmlinuz" };
    format!("usr/lib/modules/{release}/{file}\n")
}

/// Returns true if the generator's hook `name` is in effect and the text of its program contains
/// `file`, the start of an image's path.
///
/// This finds the images that another hook removed before an upgrade.
pub(super) fn is_stock_and_names(root: &Path, name: &str, file: &str) -> bool {
    let program = exec(root, name).and_then(|words| words.into_iter().next());
    let names = |program: String| {
        fs::read_to_string(paths::below(root, Path::new(&program)))
            .is_ok_and(|text| text.contains(file))
    };
    HookInEffect::of(root, name) == HookInEffect::Stock && program.is_some_and(names)
}

/// The hook that libalpm runs under the name of a generator's hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookInEffect {
    /// No hook has the name.
    Missing,
    /// No hook, because an empty file or a link to `/dev/null` masks it.
    Masked,
    /// The hook that the generator ships, or an override that runs the same command, such as ours.
    /// If the generator ships no hook, the administrator's own hook.
    Stock,
    /// An override that runs another command.
    Foreign,
}

impl HookInEffect {
    pub(super) fn of(root: &Path, name: &str) -> Self {
        let Some(file) = effective_file(root, name) else { return Self::Missing };
        let text = fs::read_to_string(&file).unwrap_or_default();
        if !text.contains("[Trigger]") {
            return Self::Masked;
        }
        let shipped = shipped(root, name);
        if file == shipped || text.starts_with(MARK) {
            return Self::Stock;
        }
        let line = |text: &str| exec_line(text).unwrap_or_default().join(" ");
        match fs::read_to_string(shipped) {
            // The override may run the command in a shell, after a command of its own.
            Ok(shipped) if !line(&text).contains(&line(&shipped)) => Self::Foreign,
            _ => Self::Stock,
        }
    }
}

/// Returns true if libalpm runs the hook `name`. Returns false if no file has the name, or if the
/// file is empty or a link to `/dev/null`.
pub(crate) fn is_active(root: &Path, name: &str) -> bool {
    let in_effect = HookInEffect::of(root, name);
    matches!(in_effect, HookInEffect::Stock | HookInEffect::Foreign)
}

/// Returns the file that libalpm reads for the hook `name`; `None` if there is none.
fn effective_file(root: &Path, name: &str) -> Option<PathBuf> {
    let mut files = directories(root).into_iter().rev().map(|dir| dir.join(name));
    files.find(|file| file.symlink_metadata().is_ok())
}

/// Returns the command in a hook's text, split into words; `None` if there is no command.
pub(crate) fn exec_line(text: &str) -> Option<Vec<String>> {
    let words = split(text.lines().find_map(exec_value)?.trim());
    (!words.is_empty()).then_some(words)
}

/// Returns true if a line of a hook file contains the hook's command.
pub(crate) fn is_exec(line: &str) -> bool {
    exec_value(line).is_some()
}

fn exec_value(line: &str) -> Option<&str> {
    line.trim().strip_prefix("Exec")?.trim_start().strip_prefix('=')
}

/// Splits a command into words as libalpm does: at blanks outside quotes. A backslash escapes the
/// next character.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const NAME: &str = "90-mkinitcpio-install.hook";

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    fn hook(exec: &str) -> String {
        format!(
            "[Trigger]\nType = Path\nTarget = x\n[Action]\nWhen = PostTransaction\nExec = {exec}\n"
        )
    }

    #[test]
    fn an_override_takes_precedence() {
        let stock = hook("/usr/share/libalpm/scripts/mkinitcpio install");
        let own = hook("/usr/local/bin/limine 'with blank' install");
        let system = format!("usr/share/libalpm/hooks/{NAME}");
        let files = root(&[(&system, &stock), (&format!("etc/pacman.d/hooks/{NAME}"), &own)]);
        assert_eq!(
            exec(files.path(), NAME).unwrap(),
            ["/usr/local/bin/limine", "with blank", "install"]
        );
        let conf = "[options]\n#HookDir = /etc/pacman.d/hooks\nHookDir = /opt/hooks/\n";
        let elsewhere = root(&[(&system, &stock), ("etc/pacman.conf", conf)]);
        assert_eq!(exec(elsewhere.path(), NAME).unwrap().len(), 2);
        assert!(is_active(elsewhere.path(), NAME));
    }

    #[test]
    fn the_target_is_the_file_that_triggers_the_hook() {
        let release = "7.2".parse().unwrap();
        let target = |lines: &str| {
            let file = format!("usr/share/libalpm/hooks/{NAME}");
            let files = root(&[(&file, &format!("[Trigger]\n{lines}[Action]\nExec = /x\n"))]);
            kernel_target(files.path(), NAME, &release)
        };
        let [pkgbase, vmlinuz] =
            ["pkgbase", "vmlinuz"].map(|file| format!("Target = usr/lib/modules/*/{file}\n"));
        assert_eq!(target(&pkgbase), "usr/lib/modules/7.2/pkgbase\n");
        assert_eq!(target(&vmlinuz), "usr/lib/modules/7.2/vmlinuz\n");
        assert_eq!(target(&(pkgbase + &vmlinuz)), "usr/lib/modules/7.2/vmlinuz\n");
        assert_eq!(target(""), "usr/lib/modules/7.2/vmlinuz\n");
    }

    #[test]
    fn finds_image_names_in_the_program_of_a_stock_hook() {
        let (file, program) = (format!("usr/share/libalpm/hooks/{NAME}"), "/usr/bin/make-images");
        let script = "install -D x \"/boot/initramfs-$pkgbase.img\"\n";
        let files = root(&[(&file, &hook(program)), (program.trim_start_matches('/'), script)]);
        let names = |file: &str| is_stock_and_names(files.path(), NAME, file);
        assert!(names("/boot/initramfs-") && !names("/efi/"));
        let masks = files.path().join("etc/pacman.d/hooks");
        fs::create_dir_all(&masks).unwrap();
        symlink("/dev/null", masks.join(NAME)).unwrap();
        assert!(!is_stock_and_names(files.path(), NAME, "/boot/initramfs-"));
    }

    const STOCK: &str = "/usr/share/libalpm/scripts/mkinitcpio install";

    /// Each case: the shipped hook, and the file in /etc that overrides it, if any.
    #[rstest::rstest]
    #[case::none(None, None, HookInEffect::Missing)]
    #[case::shipped(Some(STOCK), None, HookInEffect::Stock)]
    #[case::of_the_administrator(None, Some(hook("/usr/local/bin/install")), HookInEffect::Stock)]
    #[case::copied(Some(STOCK), Some(hook(STOCK)), HookInEffect::Stock)]
    #[case::wrapped(
        Some(STOCK),
        Some(hook(&format!("/bin/sh -c 'mount /boot; exec {STOCK}'"))),
        HookInEffect::Stock
    )]
    #[case::of_us(
        Some(STOCK),
        Some(format!("{MARK}\n{}", hook("/bin/ours"))),
        HookInEffect::Stock
    )]
    #[case::of_limine(
        Some(STOCK),
        Some(hook("/usr/share/libalpm/scripts/limine-mkinitcpio-install")),
        HookInEffect::Foreign
    )]
    #[case::empty(Some(STOCK), Some(String::new()), HookInEffect::Masked)]
    #[case::empty_alone(None, Some(String::new()), HookInEffect::Masked)]
    fn an_override_is_foreign_if_it_runs_another_command(
        #[case] shipped: Option<&str>,
        #[case] override_text: Option<String>,
        #[case] want: HookInEffect,
    ) {
        let [system, own] =
            ["usr/share/libalpm/hooks", "etc/pacman.d/hooks"].map(|dir| format!("{dir}/{NAME}"));
        let shipped = shipped.map(hook);
        let files = [(&system, &shipped), (&own, &override_text)];
        let files: Vec<(&str, &str)> = files
            .iter()
            .filter_map(|(file, text)| Some((file.as_str(), text.as_deref()?)))
            .collect();
        assert_eq!(HookInEffect::of(root(&files).path(), NAME), want);
    }

    #[test]
    fn a_masked_hook_is_inactive_but_its_command_is_found() {
        let files = root(&[(&format!("usr/share/libalpm/hooks/{NAME}"), &hook("/stock install"))]);
        let mask = files.path().join("etc/pacman.d/hooks");
        fs::create_dir_all(&mask).unwrap();
        symlink("/dev/null", mask.join(NAME)).unwrap();
        assert_eq!(exec(files.path(), NAME).unwrap(), ["/stock", "install"]);
        assert!(!is_active(files.path(), NAME));
        assert_eq!(HookInEffect::of(files.path(), NAME), HookInEffect::Masked);
        assert!(!is_active(files.path(), "90-booster-install.hook"));
    }
}

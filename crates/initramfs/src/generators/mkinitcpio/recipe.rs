//! The modules that mkinitcpio adds to an image, as required by its configuration file and the
//! options in the image's preset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::paths;
use dkms_engine::version;

use super::super::shell_settings::{self, SettingFiles, ShellVariables};
use super::preset::{Preset, presets_for};
use crate::find_files;
use crate::image::{Image, KmodName};

/// Returns the modules that mkinitcpio's configuration adds to an image, each mapped to the setting
/// that names it. A hook, such as zfs, counts as a module with the same name.
///
/// # Errors
/// A message if the configuration cannot be read.
pub(super) fn configured_modules(
    machine: &Machine,
    kernel: &Kernel,
    image: &Image,
    presets: &[Preset],
) -> Result<BTreeMap<KmodName, String>, String> {
    let presets = presets_for(machine, kernel, presets);
    let mut of_image = presets.iter().filter(|preset| image.preset.as_ref() == Some(&preset.name));
    let recipe = of_image.find_map(|preset| Recipe::of(preset, &image.path));
    let configuration = recipe.as_ref().and_then(Recipe::configuration);
    let root = &machine.trees.root;
    let files = configurations(root, configuration);
    let variables = ShellVariables::read(&mut shell_settings::reader(machine), &files)?;
    let options = recipe.as_ref().map(Recipe::options).unwrap_or_default();

    // A `?` marks an optional module (mkinitcpio.conf(5)).
    let modules = variables.words("MODULES").map(|word| ("MODULES", word.trim_end_matches('?')));
    let is_used = |hook: &&str| !options.skipped.iter().any(|skipped| skipped == hook);
    let hooks = variables.words("HOOKS").filter(is_used).map(|word| ("HOOKS", word));
    let files = SettingFiles::read(root, &files);
    let mut configured = BTreeMap::new();
    for (key, name) in modules.chain(hooks) {
        configured.entry(KmodName::new(name)).or_insert_with(|| files.place(key, name));
    }
    for name in options.added.iter().map(String::as_str).filter(is_used) {
        let place = recipe.as_ref().map(Recipe::options_place).unwrap_or_default();
        configured.entry(KmodName::new(name)).or_insert(place);
    }
    Ok(configured)
}

/// Returns the existing configuration files: `named` if it is given, otherwise the default file and
/// its drop-ins. A configuration file named in a preset has no drop-ins (mkinitcpio.conf(5)).
fn configurations(root: &Path, named: Option<&str>) -> Vec<PathBuf> {
    let mut files = match named {
        Some(named) => vec![paths::below(root, Path::new(named))],
        None => {
            let mut dropins = find_files::with_suffix(&root.join("etc/mkinitcpio.conf.d"), ".conf");
            // As in mkinitcpio, 9-a.conf precedes 10-b.conf. Later files take precedence.
            let name = |file: &Path| file.to_string_lossy().into_owned();
            dropins.sort_by(|a, b| version::compare(&name(a), &name(b)));
            [vec![root.join("etc/mkinitcpio.conf")], dropins].concat()
        }
    };
    files.retain(|file| file.exists());
    files
}

/// An image in a preset, used to look up the image's settings.
struct Recipe<'preset> {
    preset: &'preset Preset,
    /// The image's name in `PRESETS`.
    image: &'preset str,
}

impl<'preset> Recipe<'preset> {
    /// Finds the image or UKI with the path `path` in `preset`. Returns `None` if the preset does
    /// not contain it.
    fn of(preset: &'preset Preset, path: &Path) -> Option<Self> {
        let mut images = preset.variables.list("PRESETS").iter();
        let image = images.find(|image| preset.files_of(image).any(|(file, _)| file == path))?;
        Some(Self { preset, image })
    }

    fn configuration(&self) -> Option<&'preset str> {
        self.preset.of_image(self.image, "config")
    }

    fn options(&self) -> Options {
        Options::read(self.preset.variables.words(&self.options_name()))
    }

    fn options_name(&self) -> String {
        format!("{}_options", self.image)
    }

    /// Returns the place of the options, such as `default_options in
    /// /etc/mkinitcpio.d/linux.preset`.
    fn options_place(&self) -> String {
        format!("{} in /etc/mkinitcpio.d/{}.preset", self.options_name(), self.preset.name)
    }
}

/// The hooks that mkinitcpio's command-line options add (`-A`) or skip (`-S`).
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    added: Vec<String>,
    skipped: Vec<String>,
}

impl Options {
    fn read<'word>(mut words: impl Iterator<Item = &'word str>) -> Self {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value)),
                _ if word.starts_with("--") => (word, None),
                // The value may directly follow the letter, without a space.
                _ => match word.split_at_checked(2) {
                    Some((option, "")) => (option, None),
                    Some((option, value)) => (option, Some(value)),
                    None => continue,
                },
            };
            let hooks = match option {
                "-A" | "--add" | "--addhooks" => &mut options.added,
                "-S" | "--skiphooks" => &mut options.skipped,
                _ => continue,
            };
            let value = value.or_else(|| words.next()).unwrap_or_default();
            let names = value.trim_matches(['"', '\'']).split(',').filter(|name| !name.is_empty());
            hooks.extend(names.map(str::to_owned));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::generators::Tool;
    use crate::generators::mkinitcpio::Mkinitcpio;
    use crate::test_machine::test_machine;

    const RELEASE: &str = "7.2.13-arch1-1";

    /// Returns the configured modules and hooks of two images, one list for each image. `preset`
    /// contains additional lines for the images' preset; `files` are other files to create.
    fn configured_names(preset: &str, files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let preset = format!(
            "ALL_kver=/boot/vmlinuz-linux\nPRESETS=(default fallback)\n\
             default_image=/boot/a.img\nfallback_uki=/efi/b.efi\n{preset}"
        );
        let files = [&[("etc/mkinitcpio.d/linux.preset", preset.as_str())], files].concat();
        let (_root, machine, kernel) = test_machine(RELEASE, &files);
        let mkinitcpio = Mkinitcpio::default();
        let images = mkinitcpio.images(&machine, &kernel);
        let modules = |image| mkinitcpio.configured_modules(&machine, &kernel, image).unwrap();
        images
            .iter()
            .map(modules)
            .map(|modules| modules.keys().map(|name| name.as_str().to_owned()).collect())
            .collect()
    }

    #[test]
    fn an_image_uses_its_own_configuration_or_the_shared_one() {
        let names = configured_names(
            "ALL_config=/etc/m.conf\nfallback_config=/etc/f.conf\n",
            &[
                ("etc/m.conf", "MODULES=(nvidia-drm? foo)\nHOOKS=(base zfs)\n"),
                ("etc/mkinitcpio.conf", "MODULES=(other)\n"),
            ],
        );
        assert_eq!(names, [vec!["base", "foo", "nvidia_drm", "zfs"], vec![]]);
    }

    #[test]
    fn an_image_without_its_own_configuration_uses_the_default_one() {
        let names = configured_names(
            "fallback_config=/etc/f.conf\n",
            &[
                ("etc/f.conf", "HOOKS=(base)\n"),
                ("etc/mkinitcpio.conf", "HOOKS=(base)\n"),
                ("etc/mkinitcpio.conf.d/zfs.conf", "HOOKS+=(zfs)\n"),
            ],
        );
        assert_eq!(names, [vec!["base", "zfs"], vec!["base"]]);
    }

    #[test]
    fn dropins_are_sorted_by_number() {
        let names = configured_names(
            "",
            &[
                ("etc/mkinitcpio.conf", "HOOKS=(base)\n"),
                ("etc/mkinitcpio.conf.d/9-first.conf", "HOOKS=(base first)\n"),
                ("etc/mkinitcpio.conf.d/10-last.conf", "HOOKS=(base zfs)\n"),
            ],
        );
        assert_eq!(names, [["base", "zfs"], ["base", "zfs"]]);
    }

    #[test]
    fn options_add_and_skip_hooks() {
        let names = configured_names(
            "default_options='-A nvidia'\nfallback_options=(-S autodetect,zfs)\n",
            &[("etc/mkinitcpio.conf", "HOOKS=(base autodetect zfs)\n")],
        );
        assert_eq!(names, [vec!["autodetect", "base", "nvidia", "zfs"], vec!["base"]]);
    }

    #[test]
    fn names_the_file_of_each_setting() {
        let preset = "PRESETS=(default)\ndefault_image=/boot/a.img\ndefault_options='-A nvidia'\n";
        let files = [
            ("etc/mkinitcpio.d/linux.preset", preset),
            ("etc/mkinitcpio.conf", "MODULES=(ext4)\nHOOKS=(base)\n"),
            ("etc/mkinitcpio.conf.d/zfs.conf", "HOOKS+=(zfs)\n"),
        ];
        let (_root, machine, kernel) = test_machine(RELEASE, &files);
        let mkinitcpio = Mkinitcpio::default();
        let image = mkinitcpio.images(&machine, &kernel).remove(0);
        let places = mkinitcpio.configured_modules(&machine, &kernel, &image).unwrap();
        let places: Vec<String> =
            places.iter().map(|(name, place)| format!("{name}: {place}")).collect();
        assert_eq!(
            places,
            [
                "base: HOOKS in /etc/mkinitcpio.conf",
                "ext4: MODULES in /etc/mkinitcpio.conf",
                "nvidia: default_options in /etc/mkinitcpio.d/linux.preset",
                "zfs: HOOKS in /etc/mkinitcpio.conf.d/zfs.conf",
            ]
        );
    }

    #[rstest]
    #[case::none("", &[], &[])]
    #[case::short("-S autodetect,kms -A zfs", &["zfs"], &["autodetect", "kms"])]
    #[case::attached("-Sautodetect -Azfs", &["zfs"], &["autodetect"])]
    #[case::long("--skiphooks=a --addhooks b --add=c", &["b", "c"], &["a"])]
    #[case::quoted("-S \"a,b\"", &[], &["a", "b"])]
    #[case::others("-v - --cmdline /etc/c -S a", &[], &["a"])]
    #[case::unfinished("-A", &[], &[])]
    fn reads_options(#[case] text: &str, #[case] added: &[&str], #[case] skipped: &[&str]) {
        let options = Options::read(text.split_whitespace());
        assert_eq!((&*options.added, &*options.skipped), (&*owned(added), &*owned(skipped)));
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

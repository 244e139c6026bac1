//! Evaluates, interprets and validates `dkms.conf` files.

mod context;
pub(crate) mod directives;
mod evaluation;
mod exclusive;
mod pattern;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::machine::KernelConfig;
use crate::names::{Arch, KernelRelease, ModuleName};
use crate::os::bash::BashError;
use crate::os::paths;
use exclusive::Restrictions;
use pattern::found;

pub(crate) use context::ConfReply;
pub use evaluation::DEPRECATED;
pub(crate) use evaluation::{ConfRequest, Confs, EvaluatedConf, known_directives, read_source};
pub use exclusive::Excluded;
pub use values::Values;

/// The name of the build directory in `T/M/V`. BUILT_MODULE_LOCATION is relative to this directory.
pub(crate) const BUILD: &str = "build";

/// The maximum number of records in a conf. A higher index, such as `BUILT_MODULE_NAME[99999]`, is
/// probably a typo, and would create a record for every lower index.
const MOST_RECORDS: usize = 1000;

/// A conf that has been evaluated for one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// One record per kernel object that a build produces. If there are no records, a build
    /// only runs make.
    pub records: Vec<ConfObject>,
    /// The command that builds the kernel objects.
    pub make: MakeChoice,
    /// The `PATCH` values for this kernel: the names of patches, in the order of application.
    pub patches: Vec<String>,
    /// `BUILD_DEPENDS`: the modules that must be installed before this one is built.
    pub depends: Vec<ModuleName>,
    /// `BUILD_DEPENDS_REBUILD`: whether to rebuild the module when a dependency changes.
    pub rebuild_with_depends: bool,
    /// `AUTOINSTALL`: whether to build the module for new kernels.
    pub autoinstall: Autoinstall,
    /// The scripts that run during a build, such as `PRE_BUILD`.
    pub scripts: BuildScripts,
    restrictions: Vec<Restrictions>,
}

/// The directives of a dkms.conf that describe one kernel object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfObject {
    /// The name of the built object, without `.ko`. It contains no slash.
    pub built_name: String,
    /// The directory of the built object, relative to `T/M/V` and without `..`. It begins with
    /// `build`, unless the location in the conf leads out of the build directory.
    pub built_location: PathBuf,
    /// The name of the installed object, without `.ko`. It contains no slash.
    pub dest_name: String,
    /// `DEST_MODULE_LOCATION`: a directory below the kernel's directory, with a leading slash and
    /// without `..`. Most distributions, including Arch, override it.
    pub dest_location: String,
    /// Whether to strip debugging symbols from the object.
    pub strip: bool,
}

/// The choice of the command that builds a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MakeChoice {
    /// The default command, `make -C <headers> M=<build directory>`.
    Generic,
    /// A shell command from `MAKE`. Its line breaks have been replaced with spaces, as in dkms.
    Text(String),
}

/// The value of `AUTOINSTALL`, which controls whether a module is built for new kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autoinstall {
    /// `yes`: both `dkms autoinstall` and the pacman hooks build the module.
    Yes,
    /// `no`: neither `dkms autoinstall` nor the pacman hooks build the module.
    No,
    /// Not set: `dkms autoinstall` ignores the module, but the pacman hooks build it.
    Unset,
}

/// The scripts that run during a build. Each is a file name, optionally with arguments, or `None`
/// if the directive is unset or empty.
///
/// Scripts of later steps, such as POST_INSTALL, are not included. The engine reads them from the
/// build's record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildScripts {
    pub pre_build: Option<String>,
    pub post_build: Option<String>,
}

/// Returns true if `dir` contains a module's source, recognised by its `dkms.conf`.
pub(crate) fn is_source(dir: &Path) -> bool {
    dir.join("dkms.conf").is_file()
}

impl Conf {
    /// Interprets `values`, which were read from `file` and its overrides, for `kernel`.
    ///
    /// Every path in the returned [`Conf`] stays below the directory to which it is relative.
    ///
    /// # Errors
    /// [`BashError::Invalid`] with a list of all problems.
    pub fn from_values(
        values: &Values,
        file: &Path,
        kernel: &KernelRelease,
    ) -> Result<Self, BashError> {
        let mut problems = Vec::new();
        let text = |name: &str| values.text(name, 0).map(str::to_owned);
        let mut required = |name: &str| {
            text(name).unwrap_or_else(|| {
                problems.push(format!("{name} is not set"));
                String::new()
            })
        };
        let package = required("PACKAGE_NAME");
        required("PACKAGE_VERSION");
        let records = records(values, &package, &mut problems);
        let autoinstall = match yes_or_no(values, "AUTOINSTALL", &mut problems) {
            Some(true) => Autoinstall::Yes,
            Some(false) => Autoinstall::No,
            None => Autoinstall::Unset,
        };
        let mut flag = |name| yes_or_no(values, name, &mut problems) == Some(true);
        let rebuild_with_depends = flag("BUILD_DEPENDS_REBUILD");
        // The directive is only validated here: an installation reads it from the build's record.
        flag("NO_WEAK_MODULES");
        let depends = depends(values, &mut problems);
        if !problems.is_empty() {
            return Err(BashError::Invalid { file: file.to_owned(), problems });
        }
        Ok(Self {
            make: make(values, kernel),
            patches: patches(values, kernel),
            depends,
            rebuild_with_depends,
            autoinstall,
            scripts: BuildScripts { pre_build: text("PRE_BUILD"), post_build: text("POST_BUILD") },
            restrictions: (0..records.len().max(1)).map(|i| Restrictions::at(values, i)).collect(),
            records,
        })
    }

    /// Checks that no two records describe the same object.
    ///
    /// This is required for adding, building and installing a module, but not for removing it.
    ///
    /// # Errors
    /// [`BashError::Invalid`] with a list of all duplicates.
    pub fn check_strictly(&self, file: &Path) -> Result<(), BashError> {
        let (mut built, mut dest) = (BTreeSet::new(), BTreeSet::new());
        let mut problems = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            if !built.insert((&record.built_location, &record.built_name)) {
                problems.push(format!(
                    "BUILT_MODULE_NAME[{index}] names the same object as an earlier entry"
                ));
            }
            if !dest.insert(&record.dest_name) {
                problems.push(format!("DEST_MODULE_NAME[{index}] is used by an earlier entry"));
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(BashError::Invalid { file: file.to_owned(), problems })
        }
    }

    /// Returns true if [`Self::excluded`] needs the kernel's configuration.
    #[must_use]
    pub fn needs_config(&self) -> bool {
        self.restrictions.iter().any(Restrictions::needs_config)
    }

    /// Returns the records that the BUILD_EXCLUSIVE_* directives exclude for `kernel`.
    ///
    /// Ignores BUILD_EXCLUSIVE_CONFIG if `config`, the kernel's configuration, is `None`.
    #[must_use]
    pub fn excluded(
        &self,
        kernel: &KernelRelease,
        arch: &Arch,
        config: Option<&KernelConfig>,
    ) -> Excluded {
        let unmet = |restrictions: &Restrictions| restrictions.unmet(kernel, arch, config);
        // The restrictions at index 0 apply to the whole module (dkms-behaviour 3.6).
        let whole = self.restrictions.first().and_then(unmet);
        let own = |index| self.restrictions.get(index).filter(|_| index > 0).and_then(unmet);
        let why = |index| whole.clone().or_else(|| own(index));
        Excluded { records: (0..self.records.len()).map(why).collect() }
    }
}

/// Returns one record for each index from 0 to the highest index that any directive in
/// [`directives::OF_RECORDS`] has. Returns no records if the highest index is too large.
fn records(values: &Values, package: &str, problems: &mut Vec<String>) -> Vec<ConfObject> {
    let indexes = directives::OF_RECORDS.iter().flat_map(|name| values.elements(name));
    let count = indexes.map(|(index, _)| index.saturating_add(1)).max().unwrap_or(0);
    if count > MOST_RECORDS {
        problems.push(format!(
            "array index too large in BUILT_MODULE_NAME or a related directive: {} (maximum {})",
            count - 1,
            MOST_RECORDS - 1
        ));
        return Vec::new();
    }
    (0..count).map(|index| record(values, index, count, package, problems)).collect()
}

fn record(
    values: &Values,
    index: usize,
    count: usize,
    package: &str,
    problems: &mut Vec<String>,
) -> ConfObject {
    let text = |name: &str| values.text(name, index).map(str::trim);
    let alone = (count == 1).then_some(package);
    let built_name = text("BUILT_MODULE_NAME").or(alone).unwrap_or_default();
    let dest_name = text("DEST_MODULE_NAME").unwrap_or(built_name);
    if built_name.is_empty() {
        problems.push(format!("BUILT_MODULE_NAME[{index}] is not set"));
    }
    for (directive, name) in [("BUILT_MODULE_NAME", built_name), ("DEST_MODULE_NAME", dest_name)] {
        if directive == "DEST_MODULE_NAME" && name == built_name {
            continue;
        }
        if let Some(wrong) = wrong_object_name(name) {
            problems.push(format!("{directive}[{index}] {wrong}: {name:?}"));
        }
    }
    let built_location = text("BUILT_MODULE_LOCATION").unwrap_or_default();
    let built_place = below(&format!("{BUILD}/{built_location}"));
    if built_place.is_none() {
        problems.push(format!(
            "BUILT_MODULE_LOCATION[{index}] must be inside the module's directory in the dkms tree: \
             {built_location:?}"
        ));
    }
    let dest_location = text("DEST_MODULE_LOCATION").unwrap_or_default();
    let dest_place = below(dest_location);
    let known = ["/kernel", "/updates", "/extra"];
    if dest_location.is_empty() {
        problems.push(format!("DEST_MODULE_LOCATION[{index}] is not set"));
    } else if dest_place.is_none() || !known.iter().any(|dir| dest_location.starts_with(dir)) {
        problems.push(format!(
            "DEST_MODULE_LOCATION[{index}] must be below /kernel, /updates or /extra: \
             {dest_location:?}"
        ));
    }
    let strip = values.text("STRIP", index).or(values.text("STRIP", 0));
    ConfObject {
        built_name: built_name.to_owned(),
        built_location: built_place.unwrap_or_default().into(),
        dest_name: dest_name.to_owned(),
        dest_location: format!("/{}", dest_place.unwrap_or_default()),
        strip: !strip.is_some_and(|text| text.starts_with(['n', 'N'])),
    }
}

/// Returns the rule that `name`, an object's name without `.ko`, violates. Returns `None` if the
/// name is valid or empty.
fn wrong_object_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        None
    } else if name.ends_with(".ko") || name.ends_with(".o") {
        Some("must not end in .ko or .o")
    } else if name.parse::<ModuleName>().is_err() {
        Some("must be a file name without spaces or slashes")
    } else {
        None
    }
}

/// Normalises `location`, a path relative to a base directory. Returns `None` if it is outside the
/// base directory or contains control characters.
///
/// Some confs need this: Debian's mstflint has `/kernel/../misc/`.
fn below(location: &str) -> Option<String> {
    let within =
        paths::within(Path::new(location)).filter(|_| !location.contains(char::is_control));
    within?.into_os_string().into_string().ok()
}

fn yes_or_no(values: &Values, name: &str, problems: &mut Vec<String>) -> Option<bool> {
    let text = values.text(name, 0)?.trim();
    match text.to_ascii_lowercase().as_str() {
        "" => None,
        "yes" => Some(true),
        "no" => Some(false),
        _ => {
            problems.push(format!("{name} must be yes or no: {text:?}"));
            None
        }
    }
}

/// Returns the names in BUILD_DEPENDS without duplicates. As in dkms's autoinstall, one element can
/// contain several names.
fn depends(values: &Values, problems: &mut Vec<String>) -> Vec<ModuleName> {
    let mut depends = Vec::new();
    for (index, text) in values.elements("BUILD_DEPENDS") {
        for word in text.split_whitespace() {
            match word.parse() {
                Ok(name) if depends.contains(&name) => {}
                Ok(name) => depends.push(name),
                Err(error) => problems.push(format!("BUILD_DEPENDS[{index}]: {error}")),
            }
        }
    }
    depends
}

/// Returns the command for `kernel` (dkms-behaviour 3.4). This is the last MAKE element whose
/// MAKE_MATCH matches the kernel release. Without such an element, the command is `MAKE[0]`, or the
/// default command if `MAKE[0]` is unset or has a MAKE_MATCH.
fn make(values: &Values, kernel: &KernelRelease) -> MakeChoice {
    let mut choice = values.text("MAKE", 0).filter(|_| values.text("MAKE_MATCH", 0).is_none());
    for (index, pattern) in values.elements("MAKE_MATCH").filter(|(_, text)| !text.is_empty()) {
        if found(pattern, kernel.as_str()) {
            choice = values.text("MAKE", index).or(choice);
        }
    }
    match choice {
        // dkms joins the lines of every value, and some confs wrap long commands.
        Some(text) => MakeChoice::Text(text.lines().collect::<Vec<_>>().join(" ")),
        None => MakeChoice::Generic,
    }
}

fn patches(values: &Values, kernel: &KernelRelease) -> Vec<String> {
    let for_kernel = |(index, _): &(usize, &str)| {
        values.text("PATCH_MATCH", *index).is_none_or(|pattern| found(pattern, kernel.as_str()))
    };
    let patches = values.elements("PATCH").filter(|(_, text)| !text.is_empty());
    patches.filter(for_kernel).map(|(_, text)| text.to_owned()).collect()
}

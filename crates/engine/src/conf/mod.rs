//! The meaning of a `dkms.conf`: typed, checked, and safe to make paths of.

mod context;
mod directives;
mod evaluation;
mod exclusive;
mod pattern;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::path::Path;

use crate::machine::KernelConfig;
use crate::names::{Arch, KernelRelease, ModuleName};
use crate::os::bash::BashError;
use crate::os::paths;
use exclusive::Restrictions;
use pattern::found;

pub use evaluation::DEPRECATED;
pub(crate) use evaluation::{ConfRequest, Confs, EvaluatedConf, known_directives};
pub use exclusive::Excluded;
pub use values::Values;

/// More records than this are a slip of the pen (`BUILT_MODULE_NAME[99999]`): each index below the
/// highest counts as one.
const MOST_RECORDS: usize = 1000;

/// A conf, evaluated for one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// The kernel objects that a build gives. May be empty: then make runs and that is all.
    pub records: Vec<ConfObject>,
    /// What is run to build them.
    pub make: MakeChoice,
    /// The `PATCH`es for this kernel, in their order, as written.
    pub patches: Vec<String>,
    /// `BUILD_DEPENDS`: modules that must be installed before.
    pub depends: Vec<ModuleName>,
    /// `BUILD_DEPENDS_REBUILD`: build again whenever one of them changes.
    pub rebuild_with_depends: bool,
    /// `AUTOINSTALL`.
    pub autoinstall: Autoinstall,
    /// The scripts that run during the build, each a file name with optional arguments, as written.
    pub scripts: BuildScripts,
    restrictions: Vec<Restrictions>,
}

/// One kernel object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfObject {
    /// The name it is built by, without `.ko`; one path component.
    pub built_name: String,
    /// The directory below the build directory where it is built: without `..`, relative, empty
    /// for the build directory itself.
    pub built_location: String,
    /// The name it is installed by, without `.ko`; one path component.
    pub dest_name: String,
    /// `DEST_MODULE_LOCATION`: a directory below the kernel's own, with a slash before it and without `..`.
    /// Most distributions, Arch among them, put objects elsewhere.
    pub dest_location: String,
    /// Whether debugging symbols are stripped off.
    pub strip: bool,
}

/// What builds a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MakeChoice {
    /// Nothing special: `make -C <headers> M=<build directory>`.
    Generic,
    /// A command line for the shell, as written (but line breaks are blanks, as with dkms).
    Text(String),
}

/// Whether a module wants to be built for new kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autoinstall {
    /// Yes.
    Yes,
    /// Explicitly not.
    No,
    /// Nothing is said: `dkms autoinstall` leaves it alone, Arch's hook builds it.
    Unset,
}

/// The scripts that run while a module is built; an empty directive is an unset one. The others run
/// later, and are read from the record then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildScripts {
    pub pre_build: Option<String>,
    pub post_build: Option<String>,
}

/// Returns true if a directory is the source of a module: it has a `dkms.conf`.
pub(crate) fn is_source(dir: &Path) -> bool {
    dir.join("dkms.conf").is_file()
}

impl Conf {
    /// Understands the values that `file` and its overrides have for `kernel`.
    ///
    /// # Errors
    /// [`BashError::Invalid`] with everything that is wrong. Nothing in a [`Conf`] leads out of the
    /// directory it is meant for.
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
        // Read from the record when the module is installed.
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

    /// What must hold besides before a module is added, built or installed, but does not keep
    /// anyone from removing it: that no two records are the same object.
    ///
    /// # Errors
    /// [`BashError::Invalid`] naming each that stands twice.
    pub fn check_strictly(&self, file: &Path) -> Result<(), BashError> {
        let (mut built, mut dest) = (BTreeSet::new(), BTreeSet::new());
        let mut problems = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            if !built.insert((&record.built_location, &record.built_name)) {
                problems
                    .push(format!("BUILT_MODULE_NAME[{index}] is the object of another record"));
            }
            if !dest.insert(&record.dest_name) {
                problems.push(format!("DEST_MODULE_NAME[{index}] is the name of another record"));
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(BashError::Invalid { file: file.to_owned(), problems })
        }
    }

    /// Returns true if the kernel's configuration decides which records are for it.
    #[must_use]
    pub fn needs_config(&self) -> bool {
        self.restrictions.iter().any(Restrictions::needs_config)
    }

    /// Which records are not for this kernel. `config` is its configuration, if there is one.
    #[must_use]
    pub fn excluded(
        &self,
        kernel: &KernelRelease,
        arch: &Arch,
        config: Option<&KernelConfig>,
    ) -> Excluded {
        let unmet = |restrictions: &Restrictions| restrictions.unmet(kernel, arch, config);
        // What index 0 says is for the whole module, dkms-behaviour 3.6.
        let whole = self.restrictions.first().and_then(unmet);
        let own = |index| self.restrictions.get(index).filter(|_| index > 0).and_then(unmet);
        let why = |index| whole.clone().or_else(|| own(index));
        Excluded { records: (0..self.records.len()).map(why).collect() }
    }
}

/// The records: as many as the highest index of what is said about them.
fn records(values: &Values, package: &str, problems: &mut Vec<String>) -> Vec<ConfObject> {
    let indexes = directives::OF_RECORDS.iter().flat_map(|name| values.elements(name));
    let count = indexes.map(|(index, _)| index.saturating_add(1)).max().unwrap_or(0);
    if count > MOST_RECORDS {
        problems.push(format!("BUILT_MODULE_NAME and its like go up to index {}", count - 1));
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
    let built_place = below(built_location);
    if built_place.is_none() {
        problems.push(format!(
            "BUILT_MODULE_LOCATION[{index}] must be a directory below the source: {built_location:?}"
        ));
    }
    let dest_location = text("DEST_MODULE_LOCATION").unwrap_or_default();
    let dest_place = below(dest_location);
    let known = ["/kernel", "/updates", "/extra"];
    if dest_location.is_empty() {
        problems.push(format!("DEST_MODULE_LOCATION[{index}] is not set"));
    } else if dest_place.is_none() || !known.iter().any(|dir| dest_location.starts_with(dir)) {
        problems.push(format!(
            "DEST_MODULE_LOCATION[{index}] must be a directory below /kernel, /updates or /extra: \
             {dest_location:?}"
        ));
    }
    let strip = values.text("STRIP", index).or(values.text("STRIP", 0));
    ConfObject {
        built_name: built_name.to_owned(),
        built_location: built_place.unwrap_or_default(),
        dest_name: dest_name.to_owned(),
        dest_location: format!("/{}", dest_place.unwrap_or_default()),
        strip: !strip.is_some_and(|text| text.starts_with(['n', 'N'])),
    }
}

/// What is wrong with a name that `.ko` is put behind.
fn wrong_object_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        None
    } else if name.ends_with(".ko") || name.ends_with(".o") {
        Some("must not end in .ko or .o")
    } else if name.parse::<ModuleName>().is_err() {
        Some("must be the name of a file, without blanks or directories")
    } else {
        None
    }
}

/// A location without its dots: Debian's mstflint says `/kernel/../misc/`. `None` if it leads out of
/// the base that it is put behind, or cannot be a directory.
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

/// The names in BUILD_DEPENDS: one element may hold several, as autoinstall takes it.
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

/// MAKE[0] if it is for every kernel, else the last MAKE whose MAKE_MATCH is found in the release
/// (dkms-behaviour 3.4).
fn make(values: &Values, kernel: &KernelRelease) -> MakeChoice {
    let mut choice = values.text("MAKE", 0).filter(|_| values.text("MAKE_MATCH", 0).is_none());
    for (index, pattern) in values.elements("MAKE_MATCH").filter(|(_, text)| !text.is_empty()) {
        if found(pattern, kernel.as_str()) {
            choice = values.text("MAKE", index).or(choice);
        }
    }
    match choice {
        // dkms makes one line of every value, and confs break long commands for the eye.
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

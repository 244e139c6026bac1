//! Finds the files of a package that pacman does not extract.

use alpm::{Alpm, Match};

use crate::configuration::Configuration;
use crate::package_files::PackageFile;

/// The directories whose files matter to builds.
const BUILDS: [&str; 2] = ["usr/src/", "usr/lib/modules/"];

/// The setting `NoExtract` (pacman.conf(5)).
pub struct NoExtract {
    /// A handle with the patterns; `None` if there are no patterns. The handle of the databases
    /// cannot be used, because package files borrow it and matching needs a mutable handle.
    alpm: Option<Alpm>,
}

impl NoExtract {
    /// Takes the patterns from `configuration`, and libalpm's directories from `databases`.
    pub fn new(configuration: &Configuration, databases: &Alpm) -> Self {
        let patterns = &configuration.not_extracted;
        let open = || {
            let mut alpm = Alpm::new(databases.root(), databases.dbpath()).ok()?;
            // libalpm takes C strings.
            let mut patterns = patterns.iter().filter(|it| !it.contains('\0'));
            patterns.try_for_each(|it| alpm.add_noextract(it.as_str())).ok()?;
            Some(alpm)
        };
        Self { alpm: (!patterns.is_empty()).then(open).flatten() }
    }

    /// Returns the files of a package that builds may read but that pacman does not extract. Skips
    /// names that are not UTF-8.
    pub fn files(&mut self, file: &PackageFile<'_>) -> Vec<String> {
        let Some(alpm) = &mut self.alpm else { return Vec::new() };
        let paths = file.package.files();
        let paths = paths.files().iter().filter_map(|it| str::from_utf8(it.name()).ok());
        let files = paths
            .filter(|path| !path.ends_with('/') && BUILDS.iter().any(|dir| path.starts_with(dir)));
        files.filter(|path| alpm.match_noextract(*path) == Match::Yes).map(str::to_owned).collect()
    }
}

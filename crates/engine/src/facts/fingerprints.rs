//! Computes digests of build inputs, and stores them with the stat signatures of the files.

use std::collections::BTreeMap;
use std::fs::{self};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::dkms_tree::KernelIdentity;
use crate::machine::{Kernel, PackagedHeaders, Trees, WrittenFiles};
use crate::os::digest::{Digest, sha256_of_file};
use crate::os::durable::{self, Durability, FileError};
use crate::os::parallel::on_all_cores_with;
use crate::os::stat::{self, Stat};
use crate::os::symlinks;
use crate::os::walk::{self, Extent, Part, Walk, whole};

/// The digests of files and trees, stored between runs.
///
/// Contents are read again only if the stat signature changed. The signature covers path, size,
/// mtime, ctime, inode, device and mode. All of these are needed, since pacman restores mtimes and
/// a reinstalled file can get the inode of the old one.
#[derive(Debug)]
pub(crate) struct Fingerprints {
    root: PathBuf,
    /// [`Trees::package_lists`].
    package_lists: Option<PathBuf>,
    store: PathBuf,
    known: BTreeMap<String, Known>,
    changed: bool,
    /// Whether to assume that headers in a kernel's own directory belong to a package.
    trusts_packages: bool,
    /// The results of [`Self::look_ahead`], by path. Each is used once.
    found: BTreeMap<PathBuf, Found>,
}

/// The names of the text files in `include/config`. All other files in that directory are empty.
const CONFIG_TEXTS: &[&str] = &["auto.conf", "kernel.release"];

/// A digest, with the stat signature of the files from which it was computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    signature: Digest,
    digest: Digest,
    /// The paths to check instead of the whole tree, if packages are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watched: Option<Watched>,
}

/// The directories and files whose metadata shows whether a package manager has changed the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    signature: Digest,
    /// The paths, one per line. Parsing a TOML list of a thousand strings would take longer than
    /// reading the metadata of the files.
    paths: String,
}

/// The result of examining a tree.
#[derive(Debug)]
enum Found {
    /// The watched paths have not changed, so the stored digest is still valid.
    Same(Digest),
    /// The walk over the tree, and the paths to watch from now on, if any.
    Walk(Walk, Option<Watched>),
}

/// A tree to examine.
struct Tree {
    /// The key under which the digest of the tree is stored.
    path: PathBuf,
    parts: Vec<Part>,
    /// Whether it is enough to check the watched paths instead of walking the tree.
    is_watched: bool,
}

impl Fingerprints {
    /// Reads the digests that earlier runs stored. Starts with no digests if the file is missing or
    /// invalid.
    #[must_use]
    pub(crate) fn open(trees: &Trees) -> Self {
        let store = trees.cache().join("digests.toml");
        let known = match fs::read_to_string(&store) {
            Ok(text) => toml::from_str(&text).unwrap_or_else(|error| {
                log::warn!("{}: ignored: {error}", store.display());
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self {
            root: trees.root.clone(),
            package_lists: trees.package_lists.clone(),
            store,
            known,
            changed: false,
            trusts_packages: false,
            found: BTreeMap::new(),
        }
    }

    /// Sets whether to assume that headers in a kernel's own directory belong to a package.
    ///
    /// Package managers replace files instead of writing into them. Replacing a file changes its
    /// directory, so hooks check only directories. This saves most of their time, because the
    /// headers of a kernel have ten times as many files as directories. Only `dkms` commands notice
    /// a header that was edited in place.
    ///
    /// If a package has replaced headers, hooks take the headers' digests from pacman's database
    /// instead of reading thousands of files.
    #[must_use]
    pub(crate) fn trusting_packages(self, trusts_packages: bool) -> Self {
        Self { trusts_packages, ..self }
    }

    /// Walks the headers of `kernels` and the trees in `sources` in parallel, on all cores.
    ///
    /// [`Self::kernel_identity`] and [`Self::source_tree`] then use these walks. Otherwise, both
    /// functions would spend nearly all of their time reading the metadata of some ten thousand
    /// files.
    pub(crate) fn look_ahead(&mut self, kernels: &[&Kernel], sources: &[PathBuf]) {
        let headers = kernels.iter().filter_map(|kernel| {
            let headers = kernel.headers.as_ref()?;
            self.header_tree(kernel, headers).ok()
        });
        let sources = sources.iter().map(|dir| source_tree(dir));
        let trees: Vec<Tree> = headers.chain(sources).collect();
        let found = on_all_cores_with(&trees, || (), |(), tree| self.examine(tree));
        // A tree that cannot be walked is left out here. The error is reported when the tree is
        // needed and walked again.
        let paths = trees.into_iter().map(|tree| tree.path);
        self.found =
            paths.zip(found).filter_map(|(path, found)| Some((path, found.ok()?))).collect();
    }

    /// Stores the digests for the next run, except those of files that no longer exist.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written. This only makes the next run slower.
    pub(crate) fn save(&mut self) -> Result<(), FileError> {
        let before = self.known.len();
        self.known.retain(|path, _| Path::new(path).exists());
        if !self.changed && self.known.len() == before {
            return Ok(());
        }
        let text = toml::to_string(&self.known).map_err(|error| {
            FileError::when("write", &self.store)(io::Error::new(ErrorKind::InvalidData, error))
        })?;
        if let Some(dir) = self.store.parent() {
            durable::create_dirs(dir)?;
        }
        // A lost or empty file only makes the next run slower.
        durable::write_with(&self.store, text.as_bytes(), Durability::None)?;
        self.changed = false;
        Ok(())
    }

    /// Returns the digest of a file's content.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be read.
    pub(crate) fn file(&mut self, path: &Path) -> Result<Digest, FileError> {
        let meta = fs::metadata(path).map_err(FileError::when("read", path))?;
        let (signature, stable) = walk::signature_of_file(Stat::of(&meta));
        self.stored_or(path, signature, stable, || Digest::of_file(path))
    }

    /// Returns the digest of the module source in `dir`, without the changes in `written` that the
    /// module's scripts made.
    ///
    /// The digest covers relative paths, contents, executable bits and link targets, but not FIFOs,
    /// sockets or devices. `dir` itself can be a link; links inside it are not followed.
    ///
    /// # Errors
    /// [`FileError`] naming the entry that cannot be read.
    pub(crate) fn source_tree(
        &mut self,
        dir: &Path,
        written: &WrittenFiles,
    ) -> Result<Digest, FileError> {
        let tree = source_tree(dir);
        let walk = match self.found.remove(&tree.path) {
            Some(Found::Walk(walk, _)) => walk,
            _ => Walk::over(&tree.parts)?,
        };
        let (signature, stable) = walk.signature();
        // The digest depends on `written`, too.
        let signature = Digest::of_bytes(format!("{signature} {}", written.digest()).as_bytes());
        let original = || Ok(walk::digest_of(&written.undo(walk.contents()?)));
        self.stored_or(&tree.path, signature, stable, original)
    }

    /// Returns the digests of those parts of `kernel` that affect builds.
    ///
    /// # Errors
    /// [`FileError`] naming the entry that cannot be read. A missing entry is not an error.
    pub(crate) fn kernel_identity(&mut self, kernel: &Kernel) -> Result<KernelIdentity, FileError> {
        let mut identity = KernelIdentity {
            release: kernel.release.clone(),
            config: None,
            symvers: None,
            headers: None,
        };
        let Some(headers) = &kernel.headers else { return Ok(identity) };
        if let Some(path) = kernel.config_file() {
            identity.config = Some(self.file(&path)?);
        }
        match self.file(&headers.join("Module.symvers")) {
            Err(error) if error.is_missing() => {}
            other => identity.symvers = Some(other?),
        }
        let tree = self.header_tree(kernel, headers)?;
        identity.headers = Some(self.headers(kernel, &tree)?);
        Ok(identity)
    }

    /// Returns true if the parts of `kernel` that affect builds have changed since the time
    /// `since`, when their state was `before`.
    ///
    /// Reads the parts again only if the change time of a header directory, the configuration or
    /// Module.symvers is later than `since`. A later change time alone proves no change, because a
    /// build may write the same contents again.
    pub(crate) fn has_changed(
        &mut self,
        kernel: &Kernel,
        before: &KernelIdentity,
        since: SystemTime,
    ) -> bool {
        let Some(headers) = &kernel.headers else { return false };
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let is_new = |path: &Path| {
            let changed = fs::metadata(path).map(|meta| {
                i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
            });
            changed.is_ok_and(|changed| u128::try_from(changed).is_ok_and(|it| it > since))
        };
        let files = kernel.config_file().into_iter().chain([headers.join("Module.symvers")]);
        let parts = self.header_dirs(kernel, headers).unwrap_or_default();
        let dirs = parts.iter().filter(|part| !matches!(part.extent, Extent::Only(_)));
        let dirs = dirs.flat_map(|part| WalkDir::new(&part.dir).into_iter().flatten());
        let mut dirs = dirs.filter(|entry| entry.file_type().is_dir());
        let may_have =
            files.into_iter().any(|file| is_new(&file)) || dirs.any(|entry| is_new(entry.path()));
        may_have && self.kernel_identity(kernel).is_ok_and(|now| now != *before)
    }

    /// Returns the directories of a kernel's headers, each labelled with its path below the
    /// kernel's directory.
    ///
    /// A kernel compiled outside its source tree, such as Debian's, has a second set of headers in
    /// the source tree.
    fn header_dirs(&self, kernel: &Kernel, headers: &Path) -> Result<Vec<Part>, FileError> {
        let real = |path: &Path| symlinks::resolve(&self.root, path).ok();
        let mut bases = vec![("build", headers.to_owned())];
        match real(&kernel.dir.join("source")) {
            Some(source) if Some(&source) != real(headers).as_ref() => {
                bases.push(("source", source));
            }
            _ => {}
        }
        let mut parts = Vec::new();
        for (label, base) in bases {
            let part = |below: &Path, extent| {
                let dir = real(&base.join(below)).filter(|dir| dir.is_dir())?;
                Some(Part { label: Path::new(label).join(below), dir, extent })
            };
            let include = Path::new("include");
            parts.extend(part(include, Extent::Without("config")));
            parts.extend(part(&include.join("config"), Extent::Only(CONFIG_TEXTS)));
            for arch in walk::names(&base.join("arch"))? {
                parts.extend(part(&Path::new("arch").join(arch).join(include), Extent::All));
            }
        }
        Ok(parts)
    }

    fn header_tree(&self, kernel: &Kernel, headers: &Path) -> Result<Tree, FileError> {
        let parts = self.header_dirs(kernel, headers)?;
        let own = parts.iter().all(|part| part.dir.starts_with(&kernel.dir));
        let is_watched = own && self.trusts_packages;
        Ok(Tree { path: headers.to_owned(), parts, is_watched })
    }

    fn examine(&self, tree: &Tree) -> Result<Found, FileError> {
        let began = stat::now();
        if tree.is_watched
            && let Some(known) = tree.path.to_str().and_then(|path| self.known.get(path))
            && let Some(watched) = &known.watched
        {
            let paths: Vec<&str> = watched.paths.lines().collect();
            let (signature, _) = walk::signature_of_watched(&tree.parts, &paths, began);
            if signature == watched.signature {
                return Ok(Found::Same(known.digest));
            }
        }
        let walk = Walk::over(&tree.parts)?;
        let watched = tree.is_watched.then(|| watched(tree, &walk, began)).flatten();
        Ok(Found::Walk(walk, watched))
    }

    fn headers(&mut self, kernel: &Kernel, tree: &Tree) -> Result<Digest, FileError> {
        let found = self.found.remove(&tree.path).map_or_else(|| self.examine(tree), Ok)?;
        let (walk, watched) = match found {
            Found::Same(digest) => return Ok(digest),
            Found::Walk(walk, watched) => (walk, watched),
        };
        let (signature, stable) = walk.signature();
        let (root, lists) = (self.root.clone(), self.package_lists.clone());
        let find = || PackagedHeaders::find(&root, lists.as_deref(), kernel);
        let packaged = || tree.is_watched.then(find).flatten();
        let make = || digest_of_headers(&walk, packaged());
        let digest = self.stored_or(&tree.path, signature, stable, make)?;
        if watched.is_some()
            && let Some(known) = tree.path.to_str().and_then(|path| self.known.get_mut(path))
            && known.signature == signature
        {
            known.watched = watched;
            self.changed = true;
        }
        Ok(digest)
    }

    /// Returns the stored digest of `path` if it was stored with `signature`. Otherwise returns the
    /// result of `make`.
    ///
    /// Stores a new digest only if the signature is `stable`. A file with an unstable signature can
    /// change again without changing its signature.
    fn stored_or(
        &mut self,
        path: &Path,
        signature: Digest,
        stable: bool,
        make: impl FnOnce() -> Result<Digest, FileError>,
    ) -> Result<Digest, FileError> {
        let key = path.to_str();
        if let Some(known) = key.and_then(|key| self.known.get(key))
            && known.signature == signature
        {
            return Ok(known.digest);
        }
        let digest = make()?;
        if let Some(key) = key.filter(|_| stable) {
            let watched = None;
            self.known.insert(key.to_owned(), Known { signature, digest, watched });
            self.changed = true;
        }
        Ok(digest)
    }
}

/// Returns the digest of the headers in `walk`. Takes the digests of unchanged files from
/// `packaged`, if possible.
///
/// The contents of files are hashed with SHA-256, as in packages. The result is therefore the same
/// with and without `packaged`.
fn digest_of_headers(walk: &Walk, packaged: Option<PackagedHeaders>) -> Result<Digest, FileError> {
    // If a directory was moved here, its files can differ from those of the package, although their
    // change times are older than the installation.
    let packaged = packaged.filter(|packaged| walk.dirs().all(|dir| packaged.is_unchanged(dir)));
    walk.digest_with(|path, stat| {
        let known = packaged.as_ref().and_then(|packaged| packaged.digest(path, stat));
        known.map_or_else(|| sha256_of_file(path), Ok)
    })
}

/// Returns the paths to watch in a tree.
///
/// Returns `None` if the tree may have changed since its walk started at `began`, or if a path is
/// not UTF-8 or contains a newline.
fn watched(tree: &Tree, walk: &Walk, began: i128) -> Option<Watched> {
    let paths = walk.watched();
    let (signature, stable) = walk::signature_of_watched(&tree.parts, &paths, began);
    let texts = paths.iter().map(|path| path.to_str().filter(|text| !text.contains('\n')));
    let texts: Option<Vec<&str>> = texts.collect();
    stable.then_some(())?;
    Some(Watched { signature, paths: texts?.join("\n") })
}

/// Returns the module source in `dir` as a tree to examine.
///
/// Every file of the source is checked, since module authors edit files in place.
fn source_tree(dir: &Path) -> Tree {
    Tree { path: dir.to_owned(), parts: whole(dir), is_watched: false }
}

#[cfg(test)]
mod tests;

//! Digests of what a build is made from, kept under the stat signature of the files.

use std::collections::BTreeMap;
use std::fs::{self};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dkms_tree::KernelIdentity;
use crate::machine::{Kernel, Trees};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::parallel::on_all_cores_with;
use crate::os::stat::{self, Stat};
use crate::os::symlinks;
use crate::os::walk::{self, Extent, Part, Walk, whole};

/// Fingerprints of files and trees. A content is read only where stat says something else than when
/// it was last read: path, size, mtime, ctime, inode, device and mode. (pacman restores mtimes,
/// and a reinstalled file may get its old inode back: only all of them together tell.)
#[derive(Debug)]
pub(crate) struct Fingerprints {
    root: PathBuf,
    store: PathBuf,
    known: BTreeMap<String, Known>,
    changed: bool,
    /// Whether headers in a kernel's own directory are taken to be a package's.
    trusts_packages: bool,
    /// Results of walks that were made ahead.
    found: BTreeMap<PathBuf, Found>,
}

/// The texts in `include/config`.
const CONFIG_TEXTS: &[&str] = &["auto.conf", "kernel.release"];

/// A digest with the signature of what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    signature: Digest,
    digest: Digest,
    /// What is enough to look at, where packages are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watched: Option<Watched>,
}

/// The paths that show whether a tree was changed by a package manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    signature: Digest,
    /// One path in each line: a list of a thousand texts takes longer to read than their stats.
    paths: String,
}

/// The result of a walk.
#[derive(Debug)]
enum Found {
    /// What is watched is as it was when this digest was made.
    Same(Digest),
    /// The walk, and what to watch from now on.
    Walk(Walk, Option<Watched>),
}

/// A tree to be walked.
struct Tree {
    /// The name under which its digest is kept.
    path: PathBuf,
    parts: Vec<Part>,
    /// Whether it is enough to look at what is watched.
    is_watched: bool,
}

impl Fingerprints {
    /// Reads the digests of earlier runs. None are needed: without them, contents are read again.
    #[must_use]
    pub(crate) fn open(trees: &Trees) -> Self {
        let store = trees.cache().join("digests.toml");
        let known = match fs::read_to_string(&store) {
            Ok(text) => toml::from_str(&text).unwrap_or_else(|error| {
                log::warn!("{} cannot be used and is made anew: {error}", store.display());
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self {
            root: trees.root.clone(),
            store,
            known,
            changed: false,
            trusts_packages: false,
            found: BTreeMap::new(),
        }
    }

    /// Takes headers that stand in a kernel's own directory to be a package's: package managers
    /// replace files, which shows in the directories, and never write into them. There are ten
    /// times as many files, and the stat of each is most of what a hook with
    /// nothing to do has to do. Who edited a header in place has to say so by a command.
    #[must_use]
    pub(crate) fn trusting_packages(self, trusts_packages: bool) -> Self {
        Self { trusts_packages, ..self }
    }

    /// Walks the headers of `kernels` and the `sources` on all cores, for [`Self::kernel_identity`] and
    /// [`Self::source_tree`]: nearly all of their time is the stat of some ten thousand files.
    pub(crate) fn look_ahead(&mut self, kernels: &[&Kernel], sources: &[PathBuf]) {
        let headers = kernels.iter().filter_map(|kernel| {
            let headers = kernel.headers.as_ref()?;
            self.header_tree(kernel, headers).ok()
        });
        let sources = sources.iter().map(|dir| source_tree(dir));
        let trees: Vec<Tree> = headers.chain(sources).collect();
        let found = on_all_cores_with(&trees, || (), |(), tree| self.look_at(tree));
        // What cannot be walked is walked again where it is needed, which reports the error.
        let paths = trees.into_iter().map(|tree| tree.path);
        self.found =
            paths.zip(found).filter_map(|(path, found)| Some((path, found.ok()?))).collect();
    }

    /// Keeps the digests for the next run, and forgets those of files that are gone.
    ///
    /// # Errors
    /// [`FileError`] if they cannot be written; the next run is slower then, nothing else.
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
        durable::write(&self.store, text.as_bytes())?;
        self.changed = false;
        Ok(())
    }

    /// The digest of a file's content.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be read.
    pub(crate) fn file(&mut self, path: &Path) -> Result<Digest, FileError> {
        let meta = fs::metadata(path).map_err(FileError::when("read", path))?;
        let (signature, stable) = walk::signature_of_file(Stat::of(&meta));
        self.remembered(path, signature, stable, || Digest::of_file(path))
    }

    /// The digest of a module's source: relative paths, contents, executable bits, targets of
    /// links. `dir` itself may be a link, links inside are not followed; a FIFO, socket or device
    /// counts by its name.
    ///
    /// # Errors
    /// [`FileError`] naming the entry that cannot be read.
    pub(crate) fn source_tree(&mut self, dir: &Path) -> Result<Digest, FileError> {
        self.tree(&source_tree(dir))
    }

    /// What `kernel` is for a module.
    ///
    /// # Errors
    /// [`FileError`] naming the entry that cannot be read. What is not there is no error.
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
        identity.headers = Some(self.tree(&tree)?);
        Ok(identity)
    }

    /// The directories with headers, each under the name it has below the kernel's. A kernel that
    /// was compiled outside of its source (Debian's, and one's own) has a second set there.
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

    fn look_at(&self, tree: &Tree) -> Result<Found, FileError> {
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

    fn tree(&mut self, tree: &Tree) -> Result<Digest, FileError> {
        let found = self.found.remove(&tree.path).map_or_else(|| self.look_at(tree), Ok)?;
        let (walk, watched) = match found {
            Found::Same(digest) => return Ok(digest),
            Found::Walk(walk, watched) => (walk, watched),
        };
        let (signature, stable) = walk.signature();
        let digest = self.remembered(&tree.path, signature, stable, || walk.digest())?;
        if watched.is_some()
            && let Some(known) = tree.path.to_str().and_then(|path| self.known.get_mut(path))
            && known.signature == signature
        {
            known.watched = watched;
            self.changed = true;
        }
        Ok(digest)
    }

    /// The known digest if it was made under `signature`, else one made now. It is kept only if
    /// the files are `stable`, i.e. a later change is sure to show.
    fn remembered(
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

/// What to watch of a tree that was walked from the moment `began`; `None` if something changed
/// since, or if a path cannot be written down.
fn watched(tree: &Tree, walk: &Walk, began: i128) -> Option<Watched> {
    let paths = walk.watched();
    let (signature, stable) = walk::signature_of_watched(&tree.parts, &paths, began);
    let texts = paths.iter().map(|path| path.to_str().filter(|text| !text.contains('\n')));
    let texts: Option<Vec<&str>> = texts.collect();
    stable.then_some(())?;
    Some(Watched { signature, paths: texts?.join("\n") })
}

/// A module's source: all that is in the directory, each file looked at, for who writes a module
/// writes where it is.
fn source_tree(dir: &Path) -> Tree {
    Tree { path: dir.to_owned(), parts: whole(dir), is_watched: false }
}

#[cfg(test)]
mod tests;

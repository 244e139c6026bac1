//! Strips, signs and compresses a compiled object for storage.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::signer::remove_signature;
use crate::objects::{Compression, ObjectName, Signer};
use crate::os::durable::{self, FileError};
use crate::os::process::{Environment, Program, RunError, Tools};

/// The time limit for strip and the compressors. A tool that hangs must not block a transaction.
const DEADLINE: Duration = Duration::from_secs(600);

/// The program that removes debug information from an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strip {
    /// Do not strip: debug information is kept (`STRIP=no`).
    No,
    /// `strip -g`.
    Gnu,
    /// `llvm-strip -g`, used if the compiler is clang (dkms-behaviour 4.4).
    Llvm,
}

/// The command-line options of the compressors.
///
/// The default options can be changed in framework.conf (dkms-behaviour 4.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompressionOptions {
    /// `compress_gzip_opts`, split into words.
    pub(crate) gzip: Vec<String>,
    /// `compress_xz_opts`, split into words.
    pub(crate) xz: Vec<String>,
    /// `compress_zstd_opts`, split into words.
    pub(crate) zstd: Vec<String>,
}

impl Default for CompressionOptions {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            gzip: Vec::new(),
            // The kernel's decompressor supports no other check and no larger dictionary.
            xz: words(&["--check=crc32", "--lzma2=dict=1MiB"]),
            zstd: words(&["-q", "--rm", "-T0"]),
        }
    }
}

/// An object that has been stripped, signed and compressed as required.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinishedObject {
    /// The path of the object in the staging directory.
    pub(crate) path: PathBuf,
    /// The object's file name. If compression failed, this is the name of an uncompressed object,
    /// which the kernel also loads.
    pub(crate) name: ObjectName,
    /// Messages about failed stripping or compression.
    pub(crate) notes: Vec<String>,
    /// The reason that signing failed; `None` if it succeeded or was not required.
    pub(crate) unsigned: Option<String>,
}

/// The reason that an object cannot be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A stored object cannot be unpacked.
    #[error("cannot unpack {path}: {reason}")]
    Unpack {
        /// The path of the stored object.
        path: String,
        /// The error message of the decompressor.
        reason: String,
    },
}

/// The tools and settings with which objects are stripped, signed and compressed.
#[derive(Clone, Copy)]
pub(crate) struct Workbench<'a> {
    pub(crate) tools: &'a Tools,
    /// The environment in which the tools run.
    pub(crate) env: &'a Environment,
    pub(crate) options: &'a CompressionOptions,
    /// The signer; `None` if objects are not signed.
    pub(crate) signer: Option<&'a Signer>,
}

impl<'a> Workbench<'a> {
    /// Writes a stripped, signed and compressed copy of the object `built` to the directory
    /// `staging`.
    ///
    /// `name` is the copy's file name without a suffix (`DEST_MODULE_NAME`). As in dkms, failed
    /// stripping or compression is not an error, since the module works without it.
    ///
    /// # Errors
    /// [`FinishError::File`] if `built` is not a regular file or cannot be copied.
    pub(crate) fn finish(
        &self,
        built: &Path,
        staging: &Path,
        name: &str,
        strip: Strip,
        compression: Compression,
    ) -> Result<FinishedObject, FinishError> {
        require_regular(built)?;
        let plain = ObjectName { module: name.to_owned(), compression: Compression::None };
        let path = staging.join(plain.to_string());
        let mut notes = Vec::new();
        let stripped = match strip {
            Strip::No => false,
            Strip::Gnu => self.strip(&self.tools.strip, built, &path, &mut notes)?,
            Strip::Llvm => self.strip(&self.tools.llvm_strip, built, &path, &mut notes)?,
        };
        if !stripped {
            fs::copy(built, &path).map_err(FileError::when("write", &path))?;
        }
        let unsigned = self.sign(&path);
        self.compress(FinishedObject { path, name: plain, notes, unsigned }, staging, compression)
    }

    /// Writes a copy of the object `stored`, with a new compression and signature, to the directory
    /// `staging`.
    ///
    /// Used if the kernel's compression or the signing key has changed. Without a signer, the copy
    /// keeps the signature of `stored`.
    ///
    /// # Errors
    /// [`FinishError`] if `stored` cannot be copied or unpacked.
    pub(crate) fn refinish(
        &self,
        stored: &Path,
        staging: &Path,
        compression: Compression,
    ) -> Result<FinishedObject, FinishError> {
        require_regular(stored)?;
        let cannot =
            |reason: String| FinishError::Unpack { path: stored.display().to_string(), reason };
        let name = stored.file_name().and_then(|file| ObjectName::parse(file.to_str()?));
        let name = name.ok_or_else(|| cannot("not the file name of a kernel object".into()))?;
        let packed = staging.join(name.to_string());
        fs::copy(stored, &packed).map_err(FileError::when("write", &packed))?;
        let plain = ObjectName { module: name.module.clone(), compression: Compression::None };
        let path = staging.join(plain.to_string());
        if let Some((tool, _)) = self.compressor(name.compression) {
            let unpacked = self.run(tool, &["-d", "-q", "-f"], &packed);
            durable::remove_file_if_there(&packed)?; // zstd keeps its input
            unpacked.map_err(&cannot)?;
            require_regular(&path)?;
        }
        let mut unsigned = None;
        if self.signer.is_some() {
            remove_signature(&path).map_err(FileError::when("write", &path))?;
            unsigned = self.sign(&path);
        }
        let finished = FinishedObject { path, name: plain, notes: Vec::new(), unsigned };
        self.compress(finished, staging, compression)
    }

    /// Signs an uncompressed object. Returns the reason if signing fails, otherwise `None`.
    ///
    /// The caller must not strip the object afterwards, because stripping would remove the
    /// signature.
    fn sign(&self, object: &Path) -> Option<String> {
        self.signer?.sign(self.tools, self.env, object).err()
    }

    /// Writes a stripped copy of `built` to `to`. If that fails, adds a note and returns false.
    ///
    /// Does not strip in place, because strip would truncate the object on a full disk.
    fn strip(
        &self,
        tool: &Path,
        built: &Path,
        to: &Path,
        notes: &mut Vec<String>,
    ) -> Result<bool, FileError> {
        let program = Program::new(tool, self.env).args(["-g", "-o"]).arg(to).arg(built);
        match self.outcome(program).and_then(|()| check_regular(to)) {
            Ok(()) => Ok(true),
            Err(reason) => {
                notes.push(format!("{}: not stripped: {reason}", file_name(to)));
                durable::remove_file_if_there(to)?;
                Ok(false)
            }
        }
    }

    /// Compresses the object `finished`, which is in the directory `staging`.
    ///
    /// If compression fails, adds a note and keeps the object uncompressed.
    fn compress(
        &self,
        mut finished: FinishedObject,
        staging: &Path,
        compression: Compression,
    ) -> Result<FinishedObject, FinishError> {
        let plain = finished.path.clone();
        if let Some((tool, options)) = self.compressor(compression) {
            let name = ObjectName { module: finished.name.module.clone(), compression };
            let path = staging.join(name.to_string());
            let options: Vec<_> = options.iter().map(String::as_str).chain(["-f"]).collect();
            let compressed = self
                .run(tool, &options, &plain)
                .and_then(|()| check_compressed(&path, compression));
            match compressed {
                Ok(()) => {
                    durable::remove_file_if_there(&plain)?; // zstd without --rm keeps its input
                    finished.name = name;
                    finished.path = path;
                }
                Err(reason) => {
                    durable::remove_file_if_there(&path)?;
                    // The file is missing only if the tool deleted it before failing.
                    require_regular(&plain)?;
                    finished.notes.push(format!("{name}: stored uncompressed: {reason}"));
                }
            }
        }
        let mode = Permissions::from_mode(0o644);
        fs::set_permissions(&finished.path, mode)
            .map_err(FileError::when("set the mode of", &finished.path))?;
        Ok(finished)
    }

    /// Returns the program for `compression` and its options, or `None` for [`Compression::None`].
    fn compressor(&self, compression: Compression) -> Option<(&Path, &[String])> {
        let options: &[String] = match compression {
            Compression::None => &[],
            Compression::Gzip => &self.options.gzip,
            Compression::Xz => &self.options.xz,
            Compression::Zstd => &self.options.zstd,
        };
        Some((compression.program(self.tools)?, options))
    }

    fn run(&self, tool: &Path, options: &[&str], file: &Path) -> Result<(), String> {
        self.outcome(Program::new(tool, self.env).args(options.iter().copied()).arg(file))
    }

    /// Runs a program. If it fails, returns the reason as text for a note.
    fn outcome(&self, program: Program<'a>) -> Result<(), String> {
        let ended = program.confined(self.tools).deadline(DEADLINE).run();
        let ended = ended.map_err(|error: RunError| error.to_string())?;
        if ended.success() {
            return Ok(());
        }
        match ended.complaint() {
            complaint if complaint.is_empty() => Err(ended.how.to_string()),
            complaint => Err(complaint.replace('\n', "; ")),
        }
    }
}

fn check_regular(path: &Path) -> Result<(), String> {
    require_regular(path).map_err(|error| error.to_string())
}

/// Checks that the compressed object `path` is a regular file that kmod accepts.
fn check_compressed(path: &Path, compression: Compression) -> Result<(), String> {
    check_regular(path)?;
    if compression == Compression::Zstd {
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(5).read_to_end(&mut start));
        read.map_err(|error| error.to_string())?;
        if !has_content_size(&start) {
            return Err("the zstd options omit the content size, which kmod requires".into());
        }
    }
    Ok(())
}

/// Returns true if a zstd frame states the size of its content (RFC 8878, 3.1.1.1.1).
///
/// `start` is the magic number and the byte after it. The upper two bits of that byte give the
/// length of the size field. If both bits are 0, the next bit tells whether there is a size field:
/// 1 means a field of one byte, 0 means none.
fn has_content_size(start: &[u8]) -> bool {
    match start {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor] => descriptor & 0b1110_0000 != 0,
        _ => false,
    }
}

/// Fails if `path` is not a regular file or is empty. A link is not a regular file.
fn require_regular(path: &Path) -> Result<(), FileError> {
    let failed = || FileError::when("use", path);
    let meta = fs::symlink_metadata(path).map_err(failed())?;
    if meta.is_file() && meta.len() > 0 {
        return Ok(());
    }
    let what = if meta.is_file() { "empty file" } else { "not a regular file" };
    Err(failed()(io::Error::new(ErrorKind::InvalidData, what)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;

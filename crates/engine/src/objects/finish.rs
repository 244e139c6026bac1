//! Brings a freshly compiled object into the form that is stored: stripped, signed, compressed.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::signer::remove_signature;
use crate::objects::{Compression, ObjectName, Signer};
use crate::os::durable::{self, FileError};
use crate::os::process::{Environment, Program, RunError, Tools};

/// No object takes so long. A tool that waits for something must not stop a whole transaction.
const DEADLINE: Duration = Duration::from_secs(600);

/// How debug information is taken out of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strip {
    /// Not at all (`STRIP=no`).
    No,
    /// By `strip -g`.
    Gnu,
    /// By `llvm-strip -g`, when the compiler is clang (dkms-behaviour 4.4).
    Llvm,
}

/// The options of the compressors, which framework.conf can change (dkms-behaviour 4.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompressionOptions {
    /// `compress_gzip_opts`, split into words.
    pub(crate) gzip: Vec<String>,
    /// `compress_xz_opts`.
    pub(crate) xz: Vec<String>,
    /// `compress_zstd_opts`.
    pub(crate) zstd: Vec<String>,
}

impl Default for CompressionOptions {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            gzip: Vec::new(),
            // The kernel's own decompressor knows no other check, and no larger dictionary.
            xz: words(&["--check=crc32", "--lzma2=dict=1MiB"]),
            zstd: words(&["-q", "--rm", "-T0"]),
        }
    }
}

/// A finished object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinishedObject {
    /// The object's file in the staging directory.
    pub(crate) path: PathBuf,
    /// Its name with its compression: [`Compression::None`] where compressing
    /// failed, since a plain object works as well.
    pub(crate) name: ObjectName,
    /// What did not work, one sentence each.
    pub(crate) notes: Vec<String>,
    /// Why it could not be signed, though it should be.
    pub(crate) unsigned: Option<String>,
}

/// An object that has no stored form.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishError {
    /// A file could not be copied or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A stored object cannot be unpacked.
    #[error("cannot unpack {path}: {reason}")]
    Unpack {
        /// The stored object.
        path: String,
        /// The message of its tool.
        reason: String,
    },
}

/// All that finishing needs.
#[derive(Clone, Copy)]
pub(crate) struct Workbench<'a> {
    /// The programs to call.
    pub(crate) tools: &'a Tools,
    /// Their environment.
    pub(crate) env: &'a Environment,
    /// How they compress.
    pub(crate) options: &'a CompressionOptions,
    /// The signer; `None` if objects are not signed.
    pub(crate) signer: Option<&'a Signer>,
}

impl<'a> Workbench<'a> {
    /// Makes the stored form of the object `built` in directory `staging`, under the module name
    /// `name` (`DEST_MODULE_NAME`). `built` stays as it is, to be finished in another way later.
    ///
    /// Like dkms, does not fail over strip or compression: the module is what matters.
    ///
    /// # Errors
    /// [`FinishError::File`] if `built` is no regular file or cannot be copied.
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
        let unsigned = self.sign(&path)?;
        self.compress(FinishedObject { path, name: plain, notes, unsigned }, staging, compression)
    }

    /// Makes another stored form of an object that is stored already, for a kernel whose
    /// compression changed or whose objects are signed with another key now. Without a signer,
    /// a signature stays.
    ///
    /// # Errors
    /// [`FinishError`] if it cannot be copied to `staging` or unpacked there.
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
        let name = name.ok_or_else(|| cannot("its name is not that of a kernel object".into()))?;
        let packed = staging.join(name.to_string());
        fs::copy(stored, &packed).map_err(FileError::when("write", &packed))?;
        let plain = ObjectName { module: name.module.clone(), compression: Compression::None };
        let path = staging.join(plain.to_string());
        if let Some((tool, _)) = self.compressor(name.compression) {
            let unpacked = self.run(tool, &["-d", "-q", "-f"], &packed);
            durable::remove_file_if_there(&packed)?; // zstd keeps it
            unpacked.map_err(&cannot)?;
            require_regular(&path)?;
        }
        let mut unsigned = None;
        if self.signer.is_some() {
            remove_signature(&path).map_err(FileError::when("write", &path))?;
            unsigned = self.sign(&path)?;
        }
        let finished = FinishedObject { path, name: plain, notes: Vec::new(), unsigned };
        self.compress(finished, staging, compression)
    }

    /// Signs a plain object; returns the reason if that fails. Comes after strip, which would remove
    /// the signature.
    fn sign(&self, object: &Path) -> Result<Option<String>, FileError> {
        let Some(signer) = self.signer else { return Ok(None) };
        let failed = signer.sign(self.tools, self.env, object).err();
        if failed.is_some() {
            // Whatever a tool left half done: the kernel loads what is not signed, if at all.
            remove_signature(object).map_err(FileError::when("write", object))?;
        }
        Ok(failed)
    }

    /// Writes a stripped copy. Not in place: strip would leave half an object on a full disk.
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
                notes.push(format!("{} is not stripped: {reason}", file_name(to)));
                durable::remove_file_if_there(to)?;
                Ok(false)
            }
        }
    }

    /// Compresses the plain object of `finished` beside itself.
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
                    durable::remove_file_if_there(&plain)?; // zstd without --rm keeps it
                    finished.name = name;
                    finished.path = path;
                }
                Err(reason) => {
                    durable::remove_file_if_there(&path)?;
                    // gone only if a tool threw its input away and then failed
                    require_regular(&plain)?;
                    finished.notes.push(format!("{name} is stored without compression: {reason}"));
                }
            }
        }
        let mode = Permissions::from_mode(0o644);
        fs::set_permissions(&finished.path, mode)
            .map_err(FileError::when("set the mode of", &finished.path))?;
        Ok(finished)
    }

    /// The program and options for a kind of compression.
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

    /// Runs a program; the error is the text for a note.
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

/// Whether a compressor left a regular file, and one that kmod accepts.
fn check_compressed(path: &Path, compression: Compression) -> Result<(), String> {
    check_regular(path)?;
    if compression == Compression::Zstd {
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(5).read_to_end(&mut start));
        read.map_err(|error| error.to_string())?;
        if !has_content_size(&start) {
            return Err("the zstd options leave out its size, which kmod needs".into());
        }
    }
    Ok(())
}

/// Returns true if a zstd frame that starts like this says how long its content is (RFC 8878,
/// 3.1.1.1.1): the magic number, then a descriptor with the length of the size field in its upper
/// two bits and, in the third, a flag that makes one byte of the length 0.
fn has_content_size(start: &[u8]) -> bool {
    match start {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor] => descriptor & 0b1110_0000 != 0,
        _ => false,
    }
}

/// Refuses what is not a plain, non-empty file: a link or device under an object's name.
fn require_regular(path: &Path) -> Result<(), FileError> {
    let failed = || FileError::when("use", path);
    let meta = fs::symlink_metadata(path).map_err(failed())?;
    if meta.is_file() && meta.len() > 0 {
        return Ok(());
    }
    let what = if meta.is_file() { "it is empty" } else { "it is not a regular file" };
    Err(failed()(io::Error::new(ErrorKind::InvalidData, what)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;

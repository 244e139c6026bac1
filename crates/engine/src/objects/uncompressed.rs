//! Reads stored kernel objects, which may be compressed.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use tempfile::NamedTempFile;

use super::object_name::{Compression, ObjectName};
use crate::os::process::{Environment, Output, Program, Tools};

/// The time limit for decompressing an object with xz.
const DEADLINE: Duration = Duration::from_secs(60);

/// Reads the object `path`, whose suffix indicates its compression. Returns the uncompressed
/// object, or `None` if the file cannot be read or decompressed.
///
/// Only xz runs a program. The other formats are decompressed in this process, because starting a
/// program takes longer than decompressing a typical object.
pub(crate) fn read_uncompressed(tools: &Tools, env: &Environment, path: &Path) -> Option<Vec<u8>> {
    let name = ObjectName::parse(path.file_name()?.to_str()?)?;
    let file = || File::open(path).map(BufReader::new);
    let read = match name.compression {
        Compression::None => fs::read(path),
        Compression::Gzip => file().and_then(|file| read_all(MultiGzDecoder::new(file))),
        Compression::Zstd => file().and_then(|file| {
            let decoder = StreamingDecoder::new(file).map_err(io::Error::other)?;
            read_all(decoder)
        }),
        Compression::Xz => with_xz(tools, env, path),
    };
    read.map_err(|why| log::debug!("{}: {why}", path.display())).ok()
}

fn read_all(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).map(|_| bytes)
}

fn with_xz(tools: &Tools, env: &Environment, path: &Path) -> io::Result<Vec<u8>> {
    let plain = NamedTempFile::new()?;
    let ended = Program::new(&tools.xz, env)
        .args(["-d", "-c", "-q"])
        .arg(path)
        .output(Output::Log(plain.reopen()?))
        .deadline(DEADLINE)
        .run()
        .map_err(io::Error::other)?;
    if !ended.success() {
        return Err(io::Error::other(format!("xz: {}", ended.how)));
    }
    fs::read(plain.path())
}

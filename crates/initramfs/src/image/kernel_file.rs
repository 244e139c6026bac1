//! Reads the kernel release from a bootable kernel file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use dkms_engine::names::KernelRelease;
use dkms_engine::os::paths;

/// Returns the kernel release in the header of a bootable kernel file (see
/// `Documentation/arch/x86/boot.rst` in the kernel's source). Returns `None` if the file cannot be
/// read or has no such header, as on other architectures.
#[must_use]
pub fn release(path: &Path) -> Option<String> {
    version(path).ok().flatten()?.split_whitespace().next().map(str::to_owned)
}

/// Returns the release of a kernel file if the file contains a kernel other than `kernel`. Returns
/// `None` if the file does not exist or names no release. `path` is a path on the machine at
/// `root`.
///
/// The vmlinuz in the directory of `kernel` may name a release that differs from the directory's
/// name. A file of that release also counts as `kernel`.
pub(crate) fn other_release(root: &Path, path: &Path, kernel: &KernelRelease) -> Option<String> {
    let other = release(&paths::below(root, path)).filter(|other| other != kernel.as_str())?;
    let own = release(&root.join(format!("usr/lib/modules/{kernel}/vmlinuz")));
    (own.as_ref() != Some(&other)).then_some(other)
}

/// Returns the version text, whose first word is the release. Returns `None` if the file has no
/// header.
fn version(path: &Path) -> io::Result<Option<String>> {
    /// The offset of the magic number in the header, and the number itself.
    const HEADER: (u64, &[u8; 4]) = (0x202, b"HdrS");
    /// The offset of the field `kernel_version`, which points to the version text.
    const POINTER: u64 = 0x20e;
    /// The offset that the pointer is relative to.
    const SETUP: u64 = 0x200;
    /// The number of bytes to read from the version text; no release is longer.
    const LENGTH: u64 = 256;

    let mut file = File::open(path)?;
    let (place, text) = HEADER;
    let mut four = [0; 4];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut four)?;
    if &four != text {
        return Ok(None);
    }
    let mut two = [0; 2];
    file.seek(SeekFrom::Start(POINTER))?;
    file.read_exact(&mut two)?;
    file.seek(SeekFrom::Start(u64::from(u16::from_le_bytes(two)) + SETUP))?;
    let mut bytes = Vec::new();
    file.take(LENGTH).read_to_end(&mut bytes)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8(text.to_vec()).ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reads_the_release_in_the_header() {
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let text = b"6.12.1-own (me@here) #1 SMP\0rest";
        bytes[0x300..0x300 + text.len()].copy_from_slice(text);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        assert_eq!(release(file.path()).unwrap(), "6.12.1-own");

        fs::write(file.path(), &bytes[..0x20f]).unwrap();
        assert_eq!(release(file.path()), None);
        bytes[0x202] = 0;
        fs::write(file.path(), &bytes).unwrap();
        assert_eq!(release(file.path()), None);
        assert_eq!(release(Path::new("/no/such/kernel")), None);
    }
}

//! Detects the Secure Boot signature of a unified kernel image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Returns true if the file is an EFI program with a signature, that is, a certificate table that
/// is not empty (PE format, "Attribute Certificate Table").
pub(crate) fn is_signed(path: &Path) -> bool {
    certificates(path).is_ok_and(|size| size > 0)
}

/// Returns the size of the certificate table in bytes; 0 if the file is not an EFI program.
fn certificates(path: &Path) -> io::Result<u32> {
    /// The offset of the field in the DOS header that points to the PE header.
    const PE_OFFSET: u64 = 0x3c;
    /// The distance from the PE header to the optional header.
    const OPTIONAL: u64 = 24;
    /// The magic number of the optional header, and the distance from its start to the entry for
    /// the certificate table: for 64-bit and for 32-bit programs.
    const ENTRY: [(u16, u64); 2] = [(0x20b, 112 + 4 * 8), (0x10b, 96 + 4 * 8)];

    let mut file = File::open(path)?;
    let mut two = [0; 2];
    file.read_exact(&mut two)?;
    if &two != b"MZ" {
        return Ok(0);
    }
    let mut four = [0; 4];
    file.seek(SeekFrom::Start(PE_OFFSET))?;
    file.read_exact(&mut four)?;
    let optional = u64::from(u32::from_le_bytes(four)) + OPTIONAL;
    file.seek(SeekFrom::Start(optional))?;
    file.read_exact(&mut two)?;
    let magic = u16::from_le_bytes(two);
    let Some((_, entry)) = ENTRY.iter().find(|(known, _)| *known == magic) else { return Ok(0) };
    // An entry consists of an address and a size of 4 bytes each.
    file.seek(SeekFrom::Start(optional + entry + 4))?;
    file.read_exact(&mut four)?;
    Ok(u32::from_le_bytes(four))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(certificates: u32) -> tempfile::NamedTempFile {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 64;
        bytes[64 + 24..64 + 26].copy_from_slice(&0x20b_u16.to_le_bytes());
        let entry = 64 + 24 + 112 + 4 * 8 + 4;
        bytes[entry..entry + 4].copy_from_slice(&certificates.to_le_bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn reads_the_size_of_the_certificate_table() {
        assert!(is_signed(program(1384).path()));
        assert!(!is_signed(program(0).path()));
        assert!(!is_signed(Path::new("/etc/hostname")));
        assert!(!is_signed(Path::new("/no/such/file")));
    }
}

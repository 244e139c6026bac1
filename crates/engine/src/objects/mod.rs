//! Kernel objects as files: their names, contents, signatures and compression.

mod finish;
mod modinfo;
mod object_name;
mod payload;
mod signer;
mod symbols;
mod uncompressed;

pub(crate) use finish::CompressionOptions;
pub(crate) use finish::{FinishError, FinishedObject, Strip, Workbench};
pub(crate) use modinfo::{ModInfo, parse_modinfo, read_modinfo, read_stored_modinfo};
pub use object_name::{Compression, ObjectName};
pub(crate) use payload::Payload;
pub(crate) use signer::Signers;
pub(crate) use signer::signature_of;
pub(crate) use signer::{DEADLINE, KeyOrigin, Keys, Signer, SigningDecision};
pub(crate) use symbols::Symbols;
pub(crate) use uncompressed::read_uncompressed;

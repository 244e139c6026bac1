//! Kernel objects as files: their names, modinfo, signatures and compression.

mod finish;
mod modinfo;
mod object_name;
mod payload;
mod signer;

pub(crate) use finish::CompressionOptions;
pub(crate) use finish::{FinishError, FinishedObject, Strip, Workbench};
pub(crate) use modinfo::{read_modinfo, read_stored_modinfo};
pub use object_name::{Compression, ObjectName};
pub(crate) use payload::Payload;
pub(crate) use signer::Signers;
pub(crate) use signer::{DEADLINE, KeyOrigin, Keys, Signer, SigningDecision};

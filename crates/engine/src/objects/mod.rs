//! Kernel objects as files: names, modinfo, strip, sign, compress.

mod finish;
mod object;
mod signer;

pub use finish::CompressionOptions;
pub(crate) use finish::{FinishError, Strip, Workbench};
pub(crate) use object::read_modinfo;
pub use object::{Compression, ObjectName};
pub use signer::Signers;
pub(crate) use signer::{DEADLINE, Keys, Signer, SigningDecision};

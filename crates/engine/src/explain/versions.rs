//! Compares a kernel with the other kernels for which a version of a module is built.

use crate::dkms_tree::Record;
use crate::facts::{Facts, Pair};
use crate::names::{KernelRelease, ModuleId};
use crate::version::compare;

/// Returns a sentence that names the other kernels for which this version of a module is built, and
/// says if `kernel` may be too new or too old for the source. Returns `None` if this version is
/// built for no other kernel.
pub(super) fn other_kernels(
    facts: &Facts,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Option<String> {
    let pairs = &facts.modules.get(id)?.pairs;
    let built = pairs.iter().filter(|(other, pair)| *other != kernel && is_from_source(pair));
    describe(id, kernel.as_str(), built.map(|(other, _)| other.as_str()).collect())
}

/// Returns true if the existing build was made from the present source.
fn is_from_source(pair: &Pair) -> bool {
    let record = pair.built.as_ref().and_then(|built| built.record.as_ref());
    let is_same = |record: &Record| {
        pair.inputs.as_ref().is_some_and(|now| now.source == record.inputs.source)
    };
    record.is_some_and(is_same)
}

fn describe(id: &ModuleId, kernel: &str, mut built: Vec<&str>) -> Option<String> {
    built.sort_by(|a, b| compare(a, b));
    let (oldest, newest) = (built.first()?, built.last()?);
    let suggestion = if compare(newest, kernel).is_lt() {
        ": this kernel may be too new for the source"
    } else if compare(oldest, kernel).is_gt() {
        ": this kernel may be too old for the source"
    } else {
        ""
    };
    Some(format!("{id} is built for {}{suggestion}", built.join(", ")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nowhere(&[], None)]
    #[case::older(
        &["6.18.1-lts", "7.2.9"],
        Some("foo/1 is built for 6.18.1-lts, 7.2.9: this kernel may be too new for the source")
    )]
    #[case::newer(&["7.3"], Some("foo/1 is built for 7.3: this kernel may be too old for the source"))]
    #[case::both(&["7.3", "6.18"], Some("foo/1 is built for 6.18, 7.3"))]
    fn compares_kernels(#[case] built: &[&str], #[case] want: Option<&str>) {
        let id: ModuleId = "foo/1".parse().unwrap();
        assert_eq!(describe(&id, "7.2.10", built.to_vec()).as_deref(), want);
    }
}

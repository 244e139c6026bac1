//! The faults of the objects in a kernel's directory.

use std::collections::{HashMap, HashSet};

use super::signatures::Signatures;
use super::{Fault, Objects};
use crate::dkms_tree::{Condition, Placed};
use crate::facts::KernelFacts;
use crate::installing::shadowed_objects;
use crate::machine::{Kernel, Machine, exported_by_kernel, exported_by_modules};
use crate::objects::{ModInfo, Symbols, parse_modinfo, read_uncompressed, signature_of};
use crate::os::parallel::on_all_cores;
use crate::plan::Note;

/// An object in a kernel's directory, with the data that the kernel checks when loading it.
struct Object<'a> {
    placed: &'a Placed,
    info: ModInfo,
    symbols: Symbols,
    signature: Option<Vec<u8>>,
}

/// Returns the faults of the objects in a kernel's directory. Omits missing and damaged objects,
/// because `dkms autoinstall` places them again.
pub(super) fn faults(machine: &Machine, about: &KernelFacts, objects: Objects) -> Vec<Fault> {
    let (kernel, dir) = (&about.kernel, &about.kernel.dir);
    let signatures = Signatures::required_by(machine, kernel);
    let reads_all = objects == Objects::All || signatures.is_some();
    let is_read = |object: &&Placed| match object.condition {
        Condition::Intact => reads_all,
        condition => !condition.needs_repair(),
    };
    let placed: Vec<&Placed> = about.inventory.on_top().filter(is_read).collect();
    let read = on_all_cores(&placed, |placed| {
        let bytes = read_uncompressed(&machine.tools, &machine.env, &dir.join(&placed.path))?;
        Some(Object {
            placed,
            info: parse_modinfo(&*bytes, &placed.path).ok()?,
            symbols: Symbols::read(&bytes)?,
            signature: signature_of(&bytes).map(<[u8]>::to_vec),
        })
    });
    let mut found = Vec::new();
    let unreadable = placed.iter().zip(&read).filter(|(_, object)| object.is_none());
    found.extend(unreadable.map(|(placed, _)| fault(kernel, placed, "not a kernel object")));
    let objects: Vec<Object<'_>> = read.into_iter().flatten().collect();
    found.extend(objects.iter().filter_map(|object| changed(kernel, object.placed)));
    found.extend(objects.iter().filter_map(|object| wrong_vermagic(kernel, object)));
    found.extend(unresolved(kernel, &objects));
    if let Some(signatures) = signatures {
        found.extend(objects.iter().filter_map(|object| {
            let why = signatures.problem(object.signature.as_deref())?;
            let advice = signatures.advice(&object.placed.module, &kernel.release);
            Some(fault(kernel, object.placed, &why).with_advice(advice))
        }));
    }
    let shadowed = shadowed_objects(machine, &kernel.release, &about.inventory);
    found.extend(
        shadowed
            .into_iter()
            .map(|(module, message)| Fault::new(Some(&kernel.release), Some(&module), message)),
    );
    found
}

/// Returns the fault of an object, with the command that installs it again.
fn fault(kernel: &Kernel, placed: &Placed, problem: &str) -> Fault {
    let (id, release) = (&placed.module, &kernel.release);
    let problem = format!("{id} for {release}: {}: {problem}", placed.path);
    let advice = format!("run: dkms install {id} -k {release} --force");
    Fault::new(Some(release), Some(id), problem).with_advice(advice)
}

/// Returns the fault of an object that was changed by hand. A plan that finds such a change for the
/// first time reports an equal fault.
fn changed(kernel: &Kernel, placed: &Placed) -> Option<Fault> {
    let note = || Note::changed(kernel, placed).to_string();
    let is_other = placed.condition == Condition::Other;
    is_other.then(|| Fault::new(Some(&kernel.release), Some(&placed.module), note()))
}

fn wrong_vermagic(kernel: &Kernel, object: &Object<'_>) -> Option<Fault> {
    let built_for = object.info.vermagic_release().unwrap_or("an unknown kernel");
    let is_wrong = built_for != kernel.release.as_str();
    is_wrong.then(|| fault(kernel, object.placed, &format!("built for {built_for}")))
}

/// Returns a fault for each object that the kernel would refuse because of a symbol: neither the
/// kernel nor a module exports the symbol, or its CRC differs.
fn unresolved(kernel: &Kernel, objects: &[Object<'_>]) -> Vec<Fault> {
    let needed = objects.iter().flat_map(|object| object.symbols.needed.keys());
    let needed: HashSet<&str> = needed.map(String::as_str).collect();
    if needed.is_empty() {
        return Vec::new();
    }
    // Without headers, the symbols are unknown. Missing headers are a fault of their own.
    let Some(of_kernel) = exported_by_kernel(kernel, &needed) else { return Vec::new() };
    let exported = objects.iter().flat_map(|object| object.symbols.exported.iter());
    let of_modules: HashSet<&str> = exported.map(String::as_str).collect();
    let is_unknown = |name: &&str| !of_kernel.contains_key(*name) && !of_modules.contains(*name);
    let unknown: HashSet<&str> = needed.iter().copied().filter(is_unknown).collect();
    let of_others = exported_by_modules(&kernel.dir, &unknown);
    let unknown: HashSet<&str> = unknown.difference(&of_others).copied().collect();
    objects
        .iter()
        .filter_map(|object| {
            let needed = object.symbols.needed.iter().map(|(name, crc)| (name.as_str(), *crc));
            let missing: Vec<&str> = needed
                .clone()
                .map(|(name, _)| name)
                .filter(|name| unknown.contains(name))
                .collect();
            let other: Vec<&str> = needed
                .filter(|(name, crc)| differs(&of_kernel, name, *crc))
                .map(|it| it.0)
                .collect();
            let problem = match (&missing[..], &other[..]) {
                ([], []) => return None,
                ([], other) => format!("disagrees about the version of {}", first_of(other)),
                (missing, _) => format!("unknown symbol {}", first_of(missing)),
            };
            Some(fault(kernel, object.placed, &problem))
        })
        .collect()
}

/// Returns true if the kernel exports the symbol with another CRC. A CRC of 0 is not checked.
fn differs(of_kernel: &HashMap<&str, u32>, name: &str, crc: u32) -> bool {
    crc != 0 && of_kernel.get(name).is_some_and(|exported| ![0, crc].contains(exported))
}

/// Returns the first name and the number of the others, as in `printk and 2 more`.
fn first_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crcs_differ_only_if_both_are_checked() {
        let of_kernel = HashMap::from([("printk", 1), ("unchecked", 0)]);
        assert!(differs(&of_kernel, "printk", 2));
        for (name, crc) in [("printk", 1), ("printk", 0), ("unchecked", 2), ("unknown", 2)] {
            assert!(!differs(&of_kernel, name, crc), "{name} {crc}");
        }
    }

    #[test]
    fn a_message_names_one_symbol() {
        assert_eq!(first_of(&["printk"]), "printk");
        assert_eq!(first_of(&["a", "b", "c"]), "a and 2 more");
    }
}

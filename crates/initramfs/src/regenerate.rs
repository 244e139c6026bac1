//! Paying what is owed to images: regenerating what is stale, putting back what became worse.

use std::collections::BTreeSet;
use std::path::Path;

use dkms_engine::machine::Machine;
use dkms_engine::os::durable;

use crate::assess::{Account, Accounts, Seen, look};
use crate::decide::{Decision, Now};
use crate::generators::Generator;
use crate::generators::command::Call;
use crate::image::signature;
use crate::image::{Image, Kind};
use crate::kernel_line::verdict;
use crate::snapshot::Note;

/// What a generator that writes in place needs besides the old image's room, in bytes.
const MARGIN: u64 = 1024 * 1024;

/// What ends a line about something that somebody has to mend.
const MEND: &str = "mend it, then: dkms initramfs";

impl Accounts {
    /// Regenerates what is stale, puts back what is worse than before, and gives the verdict on each kernel, a line
    /// at a time. Answers whether all is well; what is not stays owed.
    ///
    /// Generators know no other root: under one, this only says what is owed.
    pub fn settle(mut self, machine: &Machine, tell: &mut dyn FnMut(&str)) -> bool {
        if machine.trees.root != Path::new("/") {
            self.lines().iter().for_each(|line| tell(line));
            self.clear_fine(machine);
            let well = self.all.iter().all(Account::is_fine);
            if !well {
                tell("Images are made on their own machine alone, by: dkms initramfs");
            }
            return well;
        }
        let mut well = true;
        for mut account in std::mem::take(&mut self.all) {
            let troubles = self.settle_kernel(machine, &mut account, tell);
            troubles.iter().for_each(|line| tell(line));
            tell(&verdict(&account));
            if troubles.is_empty() {
                self.owed.clear(machine, &account.kernel.release);
            }
            well &= troubles.is_empty();
            self.all.push(account);
        }
        // Kernels that are gone, and machines without images, are owed nothing.
        let settled: BTreeSet<_> = self.all.iter().map(|account| &account.kernel.release).collect();
        for kernel in self.owed.kernels().filter(|kernel| !settled.contains(kernel)) {
            self.owed.clear(machine, kernel);
        }
        if let Err(error) = Note::forget(machine) {
            log::warn!("{error}");
        }
        well
    }

    /// Pays what is owed to one kernel. Answers with a line for whatever is not as it should be in the end.
    fn settle_kernel(
        &mut self,
        machine: &Machine,
        account: &mut Account,
        tell: &mut dyn FnMut(&str),
    ) -> Vec<String> {
        let Some(generator) = self.generator else { return Vec::new() };
        let name = account.name();
        let mut troubles = Vec::new();
        let mut stale = Vec::new();
        for (index, seen) in account.images.iter_mut().enumerate() {
            let path = seen.image.path.display();
            match &seen.decision {
                Decision::Fine => {}
                Decision::Keep(why) => {
                    troubles.push(format!("{name}: {path} stays as it is: {why}"));
                    seen.is_behind = true;
                }
                Decision::PutBack(why) => {
                    let why = why.clone();
                    troubles.push(self.put_back(machine, seen, &name, &why));
                }
                Decision::Regenerate(why) => match scarce(machine, generator, &seen.image) {
                    // Its generator had too little room before us, and has spoilt it.
                    Some(lack) if matches!(seen.now, Now::Unreadable(_)) => {
                        troubles.push(self.put_back(machine, seen, &name, &lack));
                    }
                    Some(lack) => {
                        troubles.push(format!(
                            "{name}: {path} is not regenerated: {lack}: make room, then: dkms initramfs"
                        ));
                        seen.is_behind = true;
                    }
                    None => {
                        tell(&format!("{name}: regenerating {path}: {why}"));
                        stale.push(index);
                    }
                },
            }
        }
        if !stale.is_empty() {
            self.keep_copies(machine, account);
            troubles.extend(self.regenerate(machine, generator, account, &stale));
        }
        // Whoever made them: ZZ-sbctl does not look at modules.
        let was_signed = |seen: &&Seen| self.note.of(&seen.image).is_some_and(|noted| noted.signed);
        let signed = account.images.iter().filter(was_signed);
        troubles.extend(signed.filter_map(|seen| sign_again(machine, &seen.image, &name)));
        troubles
    }

    /// Copies the kernel's images, all of them: a preset regenerates those that are not stale, too. A copy that
    /// was taken since the objects were placed stays, and so does one of an image that is broken now.
    fn keep_copies(&mut self, machine: &Machine, account: &Account) {
        let is_of = self.note.is_of(&account.kernel.release, &account.ours);
        for Seen { image, now, .. } in &account.images {
            let is_whole = matches!(now, Now::Holds(_));
            if self.note.of(image).is_none() || (!is_of && is_whole) {
                self.note.add(machine, image);
            }
        }
        // If this run is killed while a generator writes, the next one finds the copies.
        if let Err(error) = self.note.write(machine) {
            log::warn!("{error}");
        }
    }

    fn regenerate(
        &self,
        machine: &Machine,
        generator: Generator,
        account: &mut Account,
        stale: &[usize],
    ) -> Vec<String> {
        let (name, root) = (account.name(), &machine.trees.root);
        let images: Vec<&Image> = stale.iter().map(|index| &account.images[*index].image).collect();
        // The administrator's own command may write elsewhere.
        let writes_here = machine.settings.initramfs.command.is_empty();
        let calls = generator.calls(machine, &account.kernel, &images).into_iter();
        let failures: Vec<String> = calls.filter_map(|call| call.run(machine).err()).collect();
        let mut troubles: Vec<String> =
            failures.iter().map(|why| format!("{name}: {why}")).collect();
        for index in stale {
            let seen = &mut account.images[*index];
            seen.now = look(generator, &seen.image.below(root));
            let noted = self.note.of(&seen.image);
            let was_left = || noted.is_some_and(|noted| noted.is_untouched(&seen.image, root));
            let why = match &seen.now {
                Now::Holds(_) if failures.is_empty() && writes_here && was_left() => {
                    Some("its generator left it as it was".to_owned())
                }
                Now::Holds(_) if failures.is_empty() => None,
                Now::Holds(_) => Some("its generator failed".to_owned()),
                // Whose images may be called otherwise.
                Now::Missing if generator == Generator::Other && failures.is_empty() => None,
                Now::Missing => Some("it was not made".to_owned()),
                Now::Unreadable(why) => Some(why.clone()),
            };
            if let Some(why) = why {
                troubles.push(self.put_back(machine, seen, &name, &why));
            }
        }
        troubles
    }

    /// Puts an image back, if the kernel of what was there is still installed; says what came of it.
    fn put_back(&self, machine: &Machine, seen: &mut Seen, name: &str, why: &str) -> String {
        seen.is_behind = true;
        let path = seen.image.path.display();
        let noted = self.note.of(&seen.image).and_then(|noted| Some((noted, noted.copy.as_ref()?)));
        let Some((noted, copy)) = noted else {
            return format!("{name}: {path}: {why}, and there is nothing to put back: {MEND}");
        };
        let contents = self.generator.and_then(|generator| generator.list(copy).ok());
        let boots = |kernels: &BTreeSet<_>| {
            kernels.is_empty() || kernels.iter().any(|kernel| self.installed.contains(kernel))
        };
        let Some(contents) = contents.filter(|contents| boots(&contents.kernels)) else {
            return format!(
                "{name}: {path}: {why}; the image before was for a kernel that is gone: {MEND}"
            );
        };
        let line = match noted.put_back(&seen.image, &machine.trees.root) {
            Ok(()) => format!("{name}: {path} is the one from before again: {why}: {MEND}"),
            Err(error) => {
                return format!("{name}: {path}: {why}, and it cannot be put back: {error}");
            }
        };
        seen.now = Now::Holds(contents);
        line
    }
}

/// What there is too little room for, if there is. Half an image is worse than an old one.
fn scarce(machine: &Machine, generator: Generator, image: &Image) -> Option<String> {
    let file = image.below(&machine.trees.root);
    let dir = file.parent()?;
    let old = file.metadata().map_or(0, |meta| meta.len());
    // mkinitcpio writes over the old image, the others beside it.
    let needed = if generator == Generator::Mkinitcpio { old / 20 } else { old } + MARGIN;
    let room = durable::room(dir).filter(|room| *room < needed)?;
    let dir = image.path.parent()?.display();
    let (room, needed) = (room / 1024, needed / 1024);
    Some(format!("{dir} has {room} KiB left and it needs {needed}"))
}

/// Signs a unified kernel image again that was signed and is not any more.
fn sign_again(machine: &Machine, image: &Image, name: &str) -> Option<String> {
    let file = image.below(&machine.trees.root);
    if image.kind != Kind::Uki || signature::is_signed(&file) {
        return None;
    }
    let command = machine.settings.initramfs.sign.split_whitespace();
    let call = Call::new(&command.collect::<Vec<_>>());
    let ran = call.run(machine);
    if signature::is_signed(&file) {
        return None;
    }
    let why = ran.err().map(|why| format!(" ({why})")).unwrap_or_default();
    let path = image.path.display();
    Some(format!(
        "{name}: {path} was signed and is not any more{why}: with Secure Boot it does not start; sign it"
    ))
}

#[cfg(test)]
mod tests {
    use dkms_engine::dkms_tree::{PendingList, PendingWork};
    use testroot::TestRoot;

    use super::*;

    /// No generator may run for another root: it would make the images of this machine.
    #[test]
    fn under_another_root_what_is_owed_is_told_and_stays_owed() {
        let root = TestRoot::new();
        root.kernel("7.2").pkgbase("linux");
        root.kernel("6.12").pkgbase("linux-lts");
        let preset = "ALL_kver=/boot/vmlinuz\nPRESETS=(default)\ndefault_image=/boot/a.img\n";
        root.write("etc/mkinitcpio.d/linux.preset", preset);
        root.write("usr/bin/mkinitcpio", "");
        let machine = Machine::for_hook(root.path());
        let pending = PendingList::of(&machine.trees);
        for kernel in ["7.2", "6.12", "5.0"] {
            let kernel = kernel.parse().unwrap();
            let (module, objects) = ("zfs".parse().unwrap(), ["zfs".to_owned()].into());
            pending.write(&PendingWork::Image { kernel, module, objects }).unwrap();
        }
        let mut said = Vec::new();
        let well =
            Accounts::read(&machine).settle(&machine, &mut |line| said.push(line.to_owned()));
        assert!(!well);
        assert_eq!(
            said,
            [
                "7.2 (linux): /boot/a.img is to be regenerated: it is missing",
                "Images are made on their own machine alone, by: dkms initramfs"
            ]
        );
        // Where nothing is to be done, or nothing can be, nothing is owed any more.
        let left = pending.read();
        assert!(
            matches!(&left[..], [PendingWork::Image { kernel, .. }] if kernel.as_str() == "7.2"),
            "{left:?}"
        );
    }
}

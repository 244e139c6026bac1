//! What `dkms --help` prints, from the tables of commands and options.

use crate::commands::COMMANDS;
use crate::options::{OPTIONS, Opt};

/// The whole text.
#[must_use]
pub fn text() -> String {
    let mut text = String::from(
        "Build kernel modules from source for every kernel, and install them.\n\n\
         Usage: dkms COMMAND [MODULE/VERSION] [OPTIONS]\n\nCommands:\n",
    );
    for about in COMMANDS {
        let typed = format!("{} {}", about.name, about.operands);
        text += &format!("  {typed:<32}{}\n", about.help);
    }
    text += "\nOptions:\n";
    for opt in OPTIONS.iter().filter(|opt| !opt.help.is_empty()) {
        text += &format!("  {:<32}{}{}\n", spelled(opt), opt.help, of(opt));
    }
    text += "\nA module is named as foo/1.0, or as -m foo -v 1.0. Without -k the running kernel is \
             meant.\nadd, build and install also take a directory with a dkms.conf, or an archive \
             of one.\n";
    text
}

fn spelled(opt: &Opt) -> String {
    let short = opt.short.map_or("  ".into(), |letter| format!("-{letter}"));
    let long = match (opt.short, opt.long) {
        (_, "") => String::new(),
        (Some(_), long) => format!(", --{long}"),
        (None, long) => format!("  --{long}"),
    };
    format!("{short}{long} {}", opt.value.unwrap_or_default())
}

/// The commands it is for, if those are few enough to be worth a word.
fn of(opt: &Opt) -> String {
    match opt.of {
        [] => String::new(),
        few if few.len() <= 3 => {
            let names: Vec<_> = few.iter().map(|command| command.name()).collect();
            format!(" ({})", names.join(", "))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_all() {
        insta::assert_snapshot!(text());
    }
}

//! What `dkms --help` prints, from the tables of commands and options.

use crate::args::commands::COMMANDS;
use crate::args::options::{OPTIONS, Opt};

/// The whole text.
#[must_use]
pub fn text() -> String {
    let mut text = String::from(
        "Build kernel modules from source for every kernel, and install them.\n\n\
         Usage: dkms COMMAND [MODULE/VERSION] [OPTIONS]\n\nCommands:\n",
    );
    for about in COMMANDS {
        let usage = format!("{} {}", about.name, about.operands);
        text += &format!("  {usage:<32}{}\n", about.help);
    }
    text += "\nOptions:\n";
    for opt in OPTIONS.iter().filter(|opt| !opt.help.is_empty()) {
        text += &format!("  {:<32}{}{}\n", spelled(opt), opt.help, of(opt));
    }
    text += "\nA module is named as foo/1.0, or as -m foo -v 1.0. Without -k the running kernel is \
             meant.\nadd, build and install find the version if there is only one.\nadd, build and install also take a directory with a dkms.conf, or an archive \
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

    /// The man page, whose macros tell options and commands from other words.
    const PAGE: &str = include_str!("../../../../man/dkms.8");

    /// Whether a line of the page that begins an entry has these words beside each other.
    fn has_entry(words: &str) -> bool {
        let words: Vec<&str> = words.split(' ').collect();
        let mut entries = PAGE.lines().filter_map(|line| line.strip_prefix(".It "));
        entries.any(|entry| {
            let entry: Vec<&str> = entry.split(' ').collect();
            entry.windows(words.len()).any(|there| there == words)
        })
    }

    #[test]
    fn every_option_is_in_the_man_page() {
        for opt in OPTIONS {
            let long = (!opt.long.is_empty()).then(|| format!("Fl -{}", opt.long));
            let short = opt.short.map(|letter| format!("Fl {letter}"));
            for name in long.into_iter().chain(short) {
                assert!(has_entry(&name), "{name}");
                if opt.value.is_some() && !opt.long.is_empty() {
                    assert!(has_entry(&format!("Fl -{} Ar", opt.long)), "the value of {name}");
                }
            }
        }
        assert!(!has_entry("Fl -frobnicate"));
    }

    #[test]
    fn the_man_page_has_no_option_of_its_own() {
        let entries = PAGE.lines().filter_map(|line| line.strip_prefix(".It Fl "));
        let names = entries.flat_map(|entry| entry.split(" , Fl "));
        for name in names.filter_map(|name| name.split(' ').next()) {
            assert!(Opt::from_argument(&format!("-{name}")).is_some(), "-{name}");
        }
    }

    #[test]
    fn every_command_is_in_the_man_page() {
        for about in COMMANDS {
            let name = about.name;
            let found = ["Cm ", ", "].iter().any(|before| has_entry(&format!("{before}{name}")));
            assert!(found, "{name}");
        }
    }

    #[test]
    fn tells_all() {
        insta::assert_snapshot!(text());
    }
}

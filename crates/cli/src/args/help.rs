//! The output of `dkms --help` and `dkms COMMAND --help`.

use crate::args::commands::{COMMANDS, Command, CommandInfo};
use crate::args::options::{OPTIONS, Opt, OptId};

/// The options listed in the overview, in order.
const OVERVIEW: &[OptId] =
    &[OptId::Kernel, OptId::DryRun, OptId::Verbose, OptId::Quiet, OptId::PrintVersion, OptId::Help];

/// Returns the help for a command. For `None`, returns the overview of all commands.
#[must_use]
pub fn text(command: Option<Command>) -> String {
    match command.and_then(Command::info) {
        Some(info) => of_command(info),
        None => overview(),
    }
}

fn overview() -> String {
    let mut text = String::from(
        "Build kernel modules from source and install them.\n\n\
         Usage: dkms COMMAND [MODULE/VERSION] [OPTIONS]\n\nCommands:\n",
    );
    text.extend(COMMANDS.iter().map(|info| line(info.name, info.help)));
    text += "\nOptions:\n";
    let listed = OVERVIEW.iter().filter_map(|id| shown().find(|opt| opt.id == *id));
    text.extend(listed.map(|opt| line(&spelled(opt), opt.help)));
    text += "\nCommands that change modules act on the running kernel, unless -k or --all is given.\n\
             For help on a command, run: dkms COMMAND --help. See also dkms(8).\n";
    text
}

fn of_command(info: &CommandInfo) -> String {
    let mut text =
        format!("{}.\n\nUsage: dkms {} [OPTIONS]\n", capitalized(info.help), info.usage());
    if !info.operands.is_empty() {
        text += "\n";
        text.extend(info.operands.iter().map(|operand| line(operand.name, operand.help)));
    }
    let (general, own): (Vec<_>, Vec<_>) =
        shown().filter(|opt| opt.is_for(info.command)).partition(|opt| opt.of.is_empty());
    for (title, options) in [("Options", own), ("General options", general)] {
        if !options.is_empty() {
            text += &format!("\n{title}:\n");
            text.extend(options.iter().map(|opt| line(&spelled(opt), opt.help)));
        }
    }
    text += "\nExamples:\n";
    text.extend(info.examples.iter().map(|example| format!("  {example}\n")));
    text
}

fn shown() -> impl Iterator<Item = &'static Opt> {
    OPTIONS.iter().filter(|opt| !opt.help.is_empty())
}

fn line(left: &str, right: &str) -> String {
    format!("  {left:<29} {right}\n")
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn spelled(opt: &Opt) -> String {
    let short = opt.short.map_or("  ".into(), |letter| format!("-{letter}"));
    let long = match (opt.short, opt.long) {
        (_, "") => String::new(),
        (Some(_), long) => format!(", --{long}"),
        (None, long) => format!("  --{long}"),
    };
    format!("{short}{long} {}", opt.value.unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../man/dkms.8");

    /// Returns true if a list item in the man page contains `words`, separated by single blanks, in
    /// sequence.
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
    fn every_option_in_the_man_page_exists() {
        let entries = PAGE.lines().filter_map(|line| line.strip_prefix(".It Fl "));
        let names = entries.flat_map(|entry| entry.split(" , Fl "));
        for name in names.filter_map(|name| name.split(' ').next()) {
            assert!(Opt::from_argument(&format!("-{name}")).is_some(), "-{name}");
        }
    }

    #[test]
    fn every_command_is_in_the_man_page() {
        for info in COMMANDS {
            let name = info.name;
            let found = ["Cm ", ", "].iter().any(|before| has_entry(&format!("{before}{name}")));
            assert!(found, "{name}");
        }
    }

    #[test]
    fn prints_an_overview_of_commands() {
        insta::assert_snapshot!(text(None));
    }

    #[test]
    fn prints_help_for_one_command() {
        insta::assert_snapshot!(text(Some(Command::Install)));
    }

    #[test]
    fn every_option_is_in_the_help_for_a_command() {
        let all: String = COMMANDS.iter().map(|info| text(Some(info.command))).collect();
        for opt in shown() {
            assert!(all.contains(&line(&spelled(opt), opt.help)), "--{}", opt.long);
        }
        for line in all.lines() {
            assert!(line.len() <= 120, "{line}");
        }
    }
}

//! Reads the variables and commands of a Makefile, without running make.

use std::path::{Path, PathBuf};

use super::source::Source;
use crate::os::paths;

/// The variables that dkms sets in the environment of make (dkms-behaviour 4.2).
const FROM_DKMS: [&str; 4] = ["module", "module_version", "kernelver", "arch"];

/// A Makefile of the source.
pub(super) struct Makefile {
    /// The path, relative to the source directory.
    pub(super) path: PathBuf,
    lines: Vec<Line>,
}

/// A line of a Makefile without its comment, joined with the lines that continue it.
struct Line {
    /// The number of the first of the joined lines, from 1.
    number: usize,
    text: String,
}

/// A definition of a variable.
struct Definition<'a> {
    name: &'a str,
    /// The operator, such as `?=`.
    operator: &'a str,
    value: &'a str,
    line: usize,
}

/// The origin of the kernel directory that a Makefile uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `uname`, called on this line.
    Uname(usize),
    /// A path without variables, on this line.
    Fixed(usize, String),
}

impl Makefile {
    /// Reads the first file in `names` that exists in `dir`, which is relative to the source
    /// directory.
    pub(super) fn read(source: &Source, dir: &Path, names: &[&str]) -> Option<Self> {
        let mut paths = names.iter().map(|name| dir.join(name));
        let (path, text) = paths.find_map(|path| Some((path.clone(), source.file(&path)?)))?;
        Some(Self { path, lines: lines(&text) })
    }

    /// Returns the file that make reads in `dir`.
    pub(super) fn of_make(source: &Source, dir: &Path) -> Option<Self> {
        Self::read(source, dir, &["GNUmakefile", "makefile", "Makefile"])
    }

    /// Returns the file that kbuild reads in `dir`.
    pub(super) fn of_kbuild(source: &Source, dir: &Path) -> Option<Self> {
        Self::read(source, dir, &["Kbuild", "Makefile"])
    }

    /// Returns the definitions of all variables, in order.
    fn definitions(&self) -> impl Iterator<Item = Definition<'_>> {
        let lines = self.lines.iter().filter(|line| !line.text.starts_with('\t'));
        lines.filter_map(|line| definition(&line.text, line.number))
    }

    /// Returns the names and values of the variables that begin with `prefix`.
    pub(super) fn variables<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let named = self.definitions().filter(move |it| it.name.starts_with(prefix));
        named.map(|it| (it.name, it.value))
    }

    /// Returns the text of all lines.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.text.as_str())
    }

    /// Returns the origin of the first directory given to `-C` that depends on `uname` or is a
    /// fixed kernel directory. `given` are the variables on make's command line, which override
    /// those of the Makefile.
    pub(super) fn kernel_dir(&self, given: &[String]) -> Option<Origin> {
        self.directories().find_map(|(line, word)| self.origin(word, line, given, 0))
    }

    /// Returns the directories of the source in which the Makefile runs make, relative to the
    /// source directory.
    pub(super) fn subdirectories(&self) -> Vec<PathBuf> {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        let plain =
            self.directories().filter(|(_, word)| !word.starts_with('/') && !word.contains('$'));
        plain.filter_map(|(_, word)| paths::within(&dir.join(word))).collect()
    }

    /// Returns the arguments of `-C`, each with the number of its line.
    fn directories(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().flat_map(|line| {
            let options = line.text.match_indices("-C").filter(|(at, _)| {
                let before = line.text[..*at].chars().next_back();
                before.is_none_or(|c| c.is_whitespace())
            });
            options.filter_map(|(at, option)| {
                let word = first_word(&line.text[at + option.len()..]);
                (!word.is_empty()).then_some((line.number, word))
            })
        })
    }

    fn origin(&self, word: &str, line: usize, given: &[String], depth: u8) -> Option<Origin> {
        if word.contains("uname") {
            return Some(Origin::Uname(line));
        }
        if is_fixed_kernel_path(word) {
            return Some(Origin::Fixed(line, word.to_owned()));
        }
        if depth > 8 {
            return None;
        }
        references(word).find_map(|name| {
            let mut definitions = self.definitions().filter(|it| it.name == name);
            // If there are several definitions, a condition selects one of them, so none can be
            // followed.
            let (Some(only), None) = (definitions.next(), definitions.next()) else { return None };
            let is_given = given.iter().any(|it| it == name)
                || (only.operator == "?=" && FROM_DKMS.contains(&name));
            if is_given { None } else { self.origin(only.value, only.line, given, depth + 1) }
        })
    }

    /// Returns the number of the line whose check of KERNELRELEASE excludes all targets. Returns
    /// `None` if some targets remain when KERNELRELEASE is set, or if the Makefile has no targets.
    ///
    /// Usually, a Makefile has targets only when KERNELRELEASE is not set, so that kbuild can
    /// include it. Since dkms sets KERNELRELEASE (dkms-behaviour 4.3), make finds no target in such
    /// a Makefile.
    pub(super) fn has_no_target_with_kernelrelease(&self) -> Option<usize> {
        // One element for each open condition: true in the branch for a set KERNELRELEASE, false in
        // the branch for an unset one, and `None` if the condition checks something else.
        let mut open: Vec<Option<bool>> = Vec::new();
        let (mut check, mut hidden, mut visible) = (None, false, false);
        for line in &self.lines {
            let text = line.text.trim();
            if text.starts_with("if") {
                let set = checks_kernelrelease(text);
                check = check.or(set.map(|_| line.number));
                open.push(set);
            } else if text.starts_with("else") {
                if let Some(branch) = open.last_mut() {
                    *branch = branch.map(|set| !set);
                }
            } else if text.starts_with("endif") {
                open.pop();
            } else if is_target(&line.text) {
                let is_hidden = open.contains(&Some(false));
                hidden |= is_hidden;
                visible |= !is_hidden;
            }
        }
        check.filter(|_| hidden && !visible)
    }
}

/// Returns true if `text` names the directory of one kernel, regardless of the target.
pub(super) fn is_fixed_kernel_path(text: &str) -> bool {
    let beginnings = ["/lib/modules/", "/usr/lib/modules/", "/usr/src/linux", "/usr/src/kernels/"];
    !text.contains(['$', '`']) && beginnings.iter().any(|start| text.starts_with(start))
}

/// Returns true if `text` tests that KERNELRELEASE is set, false if it tests the opposite, and
/// `None` for other conditions.
fn checks_kernelrelease(text: &str) -> Option<bool> {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join("");
    let name = ["$(KERNELRELEASE)", "${KERNELRELEASE}"].iter().find(|name| text.contains(**name));
    let empty = |start: &str, name: &str| {
        [format!("{start}({name},)"), format!("{start}(,{name})")].contains(&text)
    };
    match (text.as_str(), name) {
        ("ifdefKERNELRELEASE", _) => Some(true),
        ("ifndefKERNELRELEASE", _) => Some(false),
        (_, Some(name)) if empty("ifneq", name) => Some(true),
        (_, Some(name)) if empty("ifeq", name) => Some(false),
        _ => None,
    }
}

/// Returns true if the line is a rule with a target that make can build by default or by name.
fn is_target(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    let is_rule = line.len() > name.len() && !line[name.len()..].starts_with(":=");
    is_rule && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && !name.contains('=')
}

/// Splits the text of a Makefile into lines. Joins continued lines and removes comments.
fn lines(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut continues = false;
    for (at, line) in text.lines().enumerate() {
        let (body, more) = match line.strip_suffix('\\') {
            Some(body) => (body, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| continues) {
            Some(last) => last.text.push_str(body),
            None => lines.push(Line { number: at + 1, text: body.to_owned() }),
        }
        continues = more;
    }
    for line in &mut lines {
        let comment =
            line.text.match_indices('#').find(|(at, _)| !line.text[..*at].ends_with('\\'));
        if let Some((at, _)) = comment {
            line.text.truncate(at);
        }
    }
    lines
}

fn definition(text: &str, line: usize) -> Option<Definition<'_>> {
    let text = text.trim_start();
    let text = ["export ", "override "].iter().find_map(|it| text.strip_prefix(it)).unwrap_or(text);
    let at = text.find('=')?;
    let start = text[..at].trim_end_matches(['?', ':', '+', '!']).len();
    let name = text[..start].trim();
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace) && !name.contains(':');
    let operator = &text[start..=at];
    is_name.then(|| Definition { name, operator, value: text[at + 1..].trim(), line })
}

/// Returns the first word of `text`, without quotes. A blank inside `$(…)`, quotes or backticks
/// does not end the word.
fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let (mut depth, mut quote) = (0_usize, None);
    let end = text.find(|c: char| {
        match c {
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.saturating_sub(1),
            '"' | '\'' | '`' if quote.is_none() => quote = Some(c),
            c if quote == Some(c) => quote = None,
            _ => {}
        }
        depth == 0 && quote.is_none() && (c.is_whitespace() || c == ';')
    });
    text[..end.unwrap_or(text.len())].trim_matches(['"', '\''])
}

/// Returns the names of the variables in `text`: `$(NAME)` and `${NAME}`.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).filter_map(|part| {
        let (close, inner) = match part.strip_prefix('(') {
            Some(inner) => (')', inner),
            None => ('}', part.strip_prefix('{')?),
        };
        inner.split(close).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn makefile(text: &str) -> Makefile {
        Makefile { path: "sub/Makefile".into(), lines: lines(text) }
    }

    const UNAME: &str = "KVER ?= $(shell uname -r)\nKDIR ?= /lib/modules/$(KVER)/build\n\
                         all:\n\t$(MAKE) -C \"$(KDIR)\" M=$(PWD)\n";

    #[rstest]
    #[case::variable(UNAME, &[], Some(Origin::Uname(1)))]
    #[case::other_variable(UNAME, &["KVERSION"], Some(Origin::Uname(1)))]
    #[case::given_release(UNAME, &["KVER"], None)]
    #[case::given_dir(UNAME, &["KDIR"], None)]
    #[case::in_a_command("all:\n\tmake -C /lib/modules/$(shell uname -r)/build M=x", &[], Some(Origin::Uname(2)))]
    #[case::backticks("all:\n\tmake -C /lib/modules/`uname -r`/build", &[], Some(Origin::Uname(2)))]
    #[case::comment("all: # -C `uname -r`\n\tmake -C $(K)\n#K = uname", &[], None)]
    #[case::two_definitions("K = 1\nK = `uname -r`\nall:\n\tmake -C $(K)", &[], None)]
    #[case::continued("K := \\\n `uname -r`\nall:\n\tmake \\\n -C $K -C $(K)", &[], Some(Origin::Uname(1)))]
    #[case::not_for_the_directory("D := `uname -r`\nall:\n\tmake -C $(K)", &[], None)]
    #[case::environment("kernelver ?= `uname -r`\nall:\n\tmake -C /k/${kernelver}", &[], None)]
    #[case::not_the_environment("kernelver := `uname -r`\nall:\n\tmake -C /k/${kernelver}", &[], Some(Origin::Uname(1)))]
    #[case::circle("A = $(B)\nB = $(A)\nall:\n\tmake -C $(A)", &[], None)]
    #[case::fixed("K = /usr/src/linux\nall:\n\tmake -C $(K)", &[], Some(Origin::Fixed(1, "/usr/src/linux".into())))]
    fn traces_the_kernel_directory(
        #[case] text: &str,
        #[case] given: &[&str],
        #[case] want: Option<Origin>,
    ) {
        let given: Vec<_> = given.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(makefile(text).kernel_dir(&given), want);
    }

    #[rstest]
    #[case::usual(
        "ifneq ($(KERNELRELEASE),)\nobj-m := a.o\nelse\nall:\n\tmake -C x\nendif",
        Some(1)
    )]
    #[case::reversed("ifeq ( $(KERNELRELEASE), )\nall: x\nelse\nobj-m := a.o\nendif", Some(1))]
    #[case::defined("A := 1\nifndef KERNELRELEASE\nall:\n\tmake\nendif", Some(2))]
    #[case::target_in_both("ifdef KERNELRELEASE\nx:\n\ty\nelse\nall:\nendif", None)]
    #[case::target_outside("ifneq ($(KERNELRELEASE),)\nobj-m := a.o\nendif\nall:\n\tmake", None)]
    #[case::other_condition("ifneq ($(DEBUG),)\nall:\nendif", None)]
    #[case::special_target_outside(".PHONY: all\nifndef KERNELRELEASE\nall:\nendif", Some(2))]
    fn finds_targets_hidden_from_dkms(#[case] text: &str, #[case] want: Option<usize>) {
        assert_eq!(makefile(text).has_no_target_with_kernelrelease(), want);
    }

    #[test]
    fn finds_the_subdirectories_in_which_make_runs() {
        let text = "all:\n\t$(MAKE) -C a all\n\tmake -C ../b -C $(K)\n\tmake -C ../../out -C /x\n";
        assert_eq!(makefile(text).subdirectories(), [Path::new("sub/a"), Path::new("b")]);
    }
}

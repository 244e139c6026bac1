//! Checks every entry of the table.

use std::collections::BTreeSet;

use rstest::rstest;

use super::*;

/// Words that the table's texts avoid.
const AVOIDED: [&str; 6] = ["whatever", "for want of", "any more", "it seems", "please", "we "];

fn table() -> CauseTable {
    toml::from_str(include_str!("../causes.toml")).unwrap()
}

fn kernel() -> Kernel {
    Kernel {
        release: "7.2".parse().unwrap(),
        dir: "/usr/lib/modules/7.2".into(),
        alive: true,
        headers: None,
        config: None,
        package: None,
        pkgbase: Some("linux".into()),
    }
}

fn texts(line: &str) -> CauseTexts {
    Cause::of(line).unwrap().texts(line, &"foo/1.0".parse().unwrap(), &kernel())
}

#[test]
fn patterns_are_valid() {
    let CauseTable { noise, causes } = table();
    RegexSet::new(noise).unwrap();
    for cause in causes {
        Regex::new(&cause.pattern).unwrap();
        assert!((1..=3).contains(&cause.rank), "{}", cause.name);
    }
}

#[test]
fn names_are_unique() {
    let causes = table().causes;
    let names: BTreeSet<&str> = causes.iter().map(|cause| cause.name.as_str()).collect();
    assert_eq!(names.len(), causes.len());
    for name in names {
        let is_kebab = name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        assert!(is_kebab && !name.starts_with('-'), "{name}");
    }
}

#[test]
fn each_line_shows_its_own_cause() {
    for cause in table().causes {
        assert!(!cause.log.is_empty(), "{}: no line", cause.name);
        for line in &cause.log {
            assert!(!TABLE.noise.is_match(line), "{}: noise: {line}", cause.name);
            assert_eq!(Cause::of(line).unwrap().name, cause.name, "{line}");
        }
    }
}

#[test]
fn each_line_fills_the_texts_of_its_cause() {
    for cause in table().causes {
        for line in cause.log.iter().take(1) {
            let CauseTexts { means, remedy, file } = texts(line);
            let filled = [means.is_some(), remedy.is_some(), file.is_some()];
            let given = [cause.means.is_some(), cause.remedy.is_some(), cause.file.is_some()];
            assert_eq!(filled, given, "{}", cause.name);
        }
    }
}

#[test]
fn texts_follow_the_rules_for_messages() {
    for cause in table().causes {
        for text in cause.means.iter().chain(&cause.remedy) {
            assert!(!text.starts_with(|c: char| c.is_uppercase()), "{text}");
            assert!(!text.ends_with(['.', '!']) && text == text.trim(), "{text}");
            assert!(text.len() <= 90 && !text.contains('\n'), "{text}");
            assert!(!AVOIDED.iter().any(|word| text.contains(word)), "{text}");
        }
        let command = cause.remedy.iter().flat_map(|remedy| remedy.split_once("run: "));
        for (_, command) in command {
            let is_ours = command.starts_with("dkms ") || command.starts_with("pacman ");
            assert!(is_ours, "{command}");
        }
        assert!(!cause.file.is_some_and(|file| file.starts_with('/')), "{}", cause.name);
    }
}

#[rstest]
#[case::function(
    "x.c:2:30: error: implicit declaration of function ‘del_timer’ [-Wx]",
    "no included header of this kernel declares the function del_timer"
)]
#[case::function_for_clang(
    "x.c:2:30: error: call to undeclared function 'del_timer'; ISO C99 and later do not",
    "no included header of this kernel declares the function del_timer"
)]
#[case::member(
    "x.c:2:53: error: ‘struct file’ has no member named ‘f_gone’; did you mean ‘f_mode’?",
    "in this kernel, struct file has no member f_gone"
)]
#[case::member_for_clang(
    "x.c:2:53: error: no member named 'f_gone' in 'struct file'",
    "in this kernel, struct file has no member f_gone"
)]
#[case::arguments(
    "x.c:2:30: error: too few arguments to function 'iput'; expected 1, have 0",
    "in this kernel, the function iput takes a different number of arguments"
)]
#[case::argument_of_another_type(
    "x.c:3:58: error: passing argument 1 of 'iput' from incompatible pointer type [-Wx]",
    "in this kernel, the function iput takes arguments of different types"
)]
#[case::callback(
    "x.c:4:38: error: initialization of 'int (*)(struct inode *)' from incompatible pointer type 'int (*)(int)' [-Wx]",
    "this kernel expects a callback of the type int (*)(struct inode *)"
)]
#[case::macro_name(
    "x.c:2:35: error: use of undeclared identifier 'GFP_OLD'",
    "no included header of this kernel defines GFP_OLD"
)]
#[case::kernel_header(
    "x.c:2:10: fatal error: asm/unaligned.h: No such file or directory",
    "this kernel has no header asm/unaligned.h"
)]
#[case::other_header(
    "x.c:2:10: fatal error: 'libfoo/foo.h' file not found",
    "the header libfoo/foo.h is not installed, or is missing from the source"
)]
#[case::symbol(
    "ERROR: modpost: \"gone\" [/var/lib/dkms/x/1/build/x.ko] undefined!",
    "neither this kernel nor any module that the build uses exports gone"
)]
#[case::namespace(
    "ERROR: modpost: module x uses symbol dma_buf_put from namespace DMA_BUF, but does not import it.",
    "in this kernel, dma_buf_put is in the namespace DMA_BUF, which the source does not import"
)]
#[case::option(
    "clang: error: unknown argument: '-fconserve-stack'",
    "the compiler does not know the option -fconserve-stack, which the kernel or the module uses"
)]
#[case::other_headers(
    "make[1]: *** /lib/modules/6.1.0-1/build: No such file or directory.  Stop.",
    "the module's build uses the headers of 6.1.0-1, which are not installed"
)]
#[case::program("/bin/sh: 1: flex: not found", "the build runs flex, which is not installed")]
#[case::compiler(
    "bash: line 1: gcc-9: command not found",
    "the compiler or linker gcc-9 is not installed"
)]
fn names_what_a_line_is_about(#[case] line: &str, #[case] means: &str) {
    assert_eq!(texts(line).means.as_deref(), Some(means));
}

#[test]
fn texts_need_all_of_their_values() {
    let id: ModuleId = "foo/1.0".parse().unwrap();
    let line = "/bin/sh: 1: /usr/lib/modules/7.2/build/scripts/basic/fixdep: not found";
    let cause = Cause::of(line).unwrap();
    let remedy = cause.texts(line, &id, &kernel()).remedy;
    assert_eq!(remedy.as_deref(), Some("run: pacman -S linux-headers"));
    // The package of a kernel that was built by hand is unknown.
    assert_eq!(cause.texts(line, &id, &Kernel { pkgbase: None, ..kernel() }).remedy, None);
}

//! Tests that bash's own messages about confs and settings are shown, with file and line.

use rstest::rstest;

use crate::fixture::{K1, K2, dkms, root};

const CONF: &str = "usr/src/foo-1.0/dkms.conf";

/// Returns the warnings in `errors` that contain `part`.
fn warnings<'a>(errors: &'a str, part: &str) -> Vec<&'a str> {
    let warnings = errors.lines().filter_map(|line| line.strip_prefix("dkms: warning: "));
    warnings.filter(|line| line.contains(part)).collect()
}

#[rstest]
#[case::open_quote("PACKAGE_NAME=\"foo\nPACKAGE_VERSION=1.0\n", 8, ": line 1: unexpected EOF")]
#[case::blanks_around_equals(
    "PACKAGE_VERSION=1.0\nPACKAGE_NAME = foo\n",
    8,
    ": line 2: PACKAGE_NAME: command not found"
)]
#[case::brackets("BUILT_MODULE_NAME 0=foo\n", 8, ": line 1: BUILT_MODULE_NAME: command not found")]
#[case::missing_git(
    "PACKAGE_NAME=foo\nPACKAGE_VERSION=\"$(no-git describe)\"\n",
    8,
    ": line 2: no-git: command not found"
)]
fn a_refused_conf_shows_what_bash_says(#[case] conf: &str, #[case] code: i32, #[case] said: &str) {
    let root = root();
    root.write(CONF, conf);
    for command in ["add", "install"] {
        let output = dkms(&root, &format!("{command} foo/1.0 -k {K1}"));
        assert_eq!(output.code, code, "{}", output.errors);
        let warnings = warnings(&output.errors, said);
        assert_eq!(warnings.len(), 1, "{}", output.errors);
        assert!(warnings[0].starts_with(&format!("ROOT/{CONF}: line ")), "{}", warnings[0]);
    }
}

#[rstest]
#[case::conf(CONF, "if true; then\nMAKE=make\n", "syntax error")]
#[case::conf_for_some_kernels(CONF, "[ ${kernelver%%.*} -gt ]\n", "[: ")]
#[case::pipe(CONF, "jobs=\"$(nosuchnproc | head -n1)\"\n", ": nosuchnproc: command not found")]
#[case::administrator(
    "etc/dkms/foo.conf",
    "nosuchprogram\n",
    "line 1: nosuchprogram: command not found"
)]
#[case::administrator_of_a_version("etc/dkms/foo-1.0.conf", "\ncase x in\n", "syntax error")]
fn complaints_about_a_file_are_shown_once_for_all_kernels(
    #[case] file: &str,
    #[case] text: &str,
    #[case] said: &str,
) {
    let root = root();
    let before = if root.exists(file) { root.read(file) } else { String::new() };
    root.write(file, before + text);
    let output = dkms(&root, &format!("install foo/1.0 -k {K1} -k {K2}"));
    assert_eq!(output.code, 0, "{}", output.errors);
    let warnings = warnings(&output.errors, said);
    assert_eq!(warnings.len(), 1, "{}", output.errors);
    assert!(warnings[0].starts_with(&format!("ROOT/{file}: line ")), "{}", warnings[0]);
}

#[rstest]
#[case::main("etc/dkms/framework.conf", "if true; then\nverbose=\n", "syntax error")]
#[case::drop_in(
    "etc/dkms/framework.conf.d/a.conf",
    "verbose = \n",
    "line 1: verbose: command not found"
)]
fn complaints_about_settings_are_shown_by_every_command(
    #[case] file: &str,
    #[case] text: &str,
    #[case] said: &str,
) {
    let root = root();
    root.write(file, text);
    let install = format!("install foo/1.0 -k {K1}");
    for (line, code) in
        [("status", 0), (install.as_str(), 0), ("install bar/1", 2), ("remove foo/9", 3)]
    {
        let output = dkms(&root, line);
        assert_eq!(output.code, code, "{line}: {}", output.errors);
        let warnings = warnings(&output.errors, said);
        assert_eq!(warnings.len(), 1, "{line}: {}{}", output.out, output.errors);
        assert!(warnings[0].starts_with(&format!("ROOT/{file}: line ")), "{}", warnings[0]);
    }
}

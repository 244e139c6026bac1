//! The output of a run: on a terminal, through pacman, and as an HTML timeline.

use stories::find;

use crate::fixture::{installed, kernel, machine, release};

/// A terminal shows progress bars during a build. The lines that remain are the same as in a pipe.
#[test]
fn terminal_shows_build_phases() {
    let root = machine(&[find("bbswitch")]);
    let module = find("bbswitch").module().to_owned();
    let install = format!("dkms install {module} -k {}", release());
    let afresh = format!("dkms remove {module} --all && dkms cache clear");
    root.shell(&afresh).ok();
    let seen = root.shell(&format!("TERM=xterm script -qec '{install}' /dev/null </dev/null")).ok();
    let compiling = format!("{module} for {}: compiling", release());
    let seen = seen.has(&compiling).has("0/1").text;
    root.shell(&afresh).ok();
    let piped = root.shell(&format!("{install} | cat")).ok().lacks("\u{1b}").lacks("compiling");
    let is_shown = |line: &str| {
        let line = line.split_once(" in ").map_or(line, |(what, _)| what);
        assert!(seen.contains(line), "{line:?} is missing on the terminal: {seen:?}");
    };
    assert!(piped.lines().len() > 1, "{}", piped.text);
    piped.lines().into_iter().for_each(is_shown);
    assert!(root.status().contains(&installed(&module, &release())));
}

/// With `[build] timings` set, a hook writes the timeline. It prints no escape sequences.
#[test]
fn hook_writes_an_html_timeline() {
    let root = machine(&[]);
    let page = "var/log/dkms.html";
    root.write("etc/dkms/alpm-dkms.toml", &format!("[build]\ntimings = \"/{page}\"\n"));
    let modules = [find("bbswitch"), find("acpi-call")];
    root.install(&modules).hooks_succeed().has("(2/2)").lacks("\u{1b}").lacks("compiling");
    let text = root.read(page);
    assert!(text.contains("<h1>2 builds in "), "{text}");
    for module in modules {
        let name = format!(">{} for {}</div>", module.module(), release());
        assert_eq!(text.matches(&name).count(), 1, "{name}: {text}");
    }
    assert!(text.contains("class=\"compiling\" style="), "{text}");
    // A transaction without builds does not change the page.
    root.install(&kernel("linux", 1)).hooks_succeed();
    assert_eq!(root.read(page), text);
}

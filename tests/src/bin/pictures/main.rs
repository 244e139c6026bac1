//! Draws the pictures for the README: terminals with the output of real transactions.
//!
//! Run it with `make pictures`. It writes each picture twice to `docs/pictures`, for light and for
//! dark pages.

#![expect(clippy::expect_used, reason = "a failed step ends the program")]

mod svg;

use std::fs;
use std::path::Path;

use stories::{Recipe, Root, find};

/// The width of the terminal in characters.
const COLUMNS: u16 = 110;

/// More lines than any command prints.
const LINES: u16 = 200;

/// The modules of the upgraded machine.
const MODULES: [&str; 4] = ["acpi-call", "bbswitch", "tp_smapi", "v4l2loopback"];

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    fs::create_dir_all(&dir).expect("create docs/pictures");
    let pictures = [("upgrade", upgrade()), ("abort", abort()), ("status", status())];
    for (name, screen) in pictures {
        for theme in [svg::LIGHT, svg::DARK] {
            let file = dir.join(format!("{name}-{}.svg", theme.name));
            fs::write(&file, svg::picture(&screen, &theme)).expect("write a picture");
        }
    }
}

/// An upgrade of the kernel with four modules.
fn upgrade() -> vt100::Parser {
    let root = machine();
    root.install(&MODULES.map(find)).hooks_succeed();
    root.unmask_preflight();
    root.make_repository(&["linux-2", "linux-headers-2"].map(find));
    session(&root, "pacman -Syu --noconfirm --color always", "pacman -Syu")
}

/// The upgrade of a machine whose root file system needs a module that does not support the new
/// kernel.
fn abort() -> vt100::Parser {
    let root = machine();
    let release = find("linux-2").release().to_owned();
    let zfs = Recipe::module("zfs", "2.4.3")
        .edit("Makefile", |makefile| {
            format!(
                "ccflags-$(if $(findstring {release},$(KERNELRELEASE)),y) := -DNEXT\n{makefile}"
            )
        })
        .edit("zfs.c", |code| {
            code + "#ifdef NEXT\nstatic int sync_all(void)\n{\n\treturn iput(0, 0);\n}\n#endif\n"
        });
    let zfs = zfs.make(&root);
    root.install(&[zfs]).hooks_succeed();
    root.write("etc/dkms/alpm-dkms.toml", "[preflight]\ncritical = [\"zfs\"]\n");
    root.unmask_preflight();
    root.make_repository(&["linux-2", "linux-headers-2"].map(find));
    session(&root, "pacman -Syu --noconfirm --color always", "pacman -Syu")
}

/// The state of three modules, one of which fails to build.
fn status() -> vt100::Parser {
    let root = machine();
    let broken = Recipe::module("zfs", "2.4.3")
        .edit("zfs.c", |code| code + "static int sync_all(void)\n{\n\treturn iput(0, 0);\n}\n");
    let broken = broken.make(&root);
    root.install(&[find("bbswitch"), find("v4l2loopback"), broken]);
    session(&root, "dkms status; echo; printf '# dkms verify\\n'; dkms verify", "dkms status")
}

/// Creates a machine with a kernel and its headers.
fn machine() -> Root {
    Root::with_kernel()
}

/// Runs `command` on a terminal, and returns the screen. `shown` is the command as a user types it.
fn session(root: &Root, command: &str, shown: &str) -> vt100::Parser {
    root.write("root/session", &format!("stty cols {COLUMNS} rows {LINES}\n{command}\n"));
    // script(1) lets the command run on a terminal.
    let run =
        "TERM=xterm-256color script -qec 'bash /root/session' /root/output </dev/null >/dev/null";
    root.shell(run);
    let output = root.bytes("root/output");
    let mut screen = vt100::Parser::new(LINES, COLUMNS, 0);
    screen.process(format!("# {shown}\r\n").as_bytes());
    screen.process(without_header(&output));
    screen
}

/// Returns the output that script(1) has logged, without its own first and last line.
fn without_header(output: &[u8]) -> &[u8] {
    let is_own =
        |line: &[u8]| line.starts_with(b"Script started") || line.starts_with(b"Script done");
    let start = match output.iter().position(|byte| *byte == b'\n') {
        Some(end) if is_own(&output[..end]) => end + 1,
        _ => 0,
    };
    let text = &output[start..];
    let end = text.windows(11).rposition(|window| window == b"Script done");
    &text[..end.unwrap_or(text.len())]
}

//! The `dkms` command: register, build and install kernel modules from source.

mod command;
mod progress;
mod status;
mod typed;
mod wanted;

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use dkms_engine::names::Arch;
use dkms_engine::site::Site;
use nix::sys::stat::{Mode, umask};
use nix::sys::utsname::uname;

use command::{Manner, Task};
use progress::{Loudness, Progress};
use typed::Typed;
use wanted::{Here, Wanted};

/// The version of dkms that this one stands for, in the form that scripts parse.
const VERSION: &str = "dkms-3.4.3";

fn main() -> ExitCode {
    let typed = match Typed::try_parse() {
        Ok(typed) => typed,
        Err(why) => {
            let _ = why.print();
            return ExitCode::from(u8::try_from(why.exit_code()).unwrap_or(2));
        }
    };
    let _ = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .parse_default_env()
        .format(|line, record| writeln!(line, "dkms: {}", record.args()))
        .try_init();
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    ExitCode::from(dkms(&typed))
}

fn dkms(typed: &Typed) -> u8 {
    let (mut out, mut errors) = (io::stdout(), io::stderr());
    let complain = |text: &str| {
        if !typed.quiet {
            let _ = writeln!(io::stderr(), "dkms: {text}");
        }
        2
    };
    let root = match absolute(&typed.root) {
        Ok(root) => root,
        Err(why) => return complain(&format!("--root {}: {why}", typed.root.display())),
    };
    let running = uname().map(|it| it.release().to_string_lossy().into_owned()).unwrap_or_default();
    let here = Here { kernel: running, arch: Arch::of_this_machine() };
    let wanted = match Wanted::read(typed, &here) {
        Ok(wanted) => wanted,
        Err(refusal) => {
            complain(&refusal.message);
            return refusal.code;
        }
    };
    let manner = Manner {
        root,
        dry_run: typed.dry_run,
        force: typed.force,
        failure_code: matches!(wanted, Wanted::Autoinstall(_)).then_some(11),
    };
    let loudness = match (typed.quiet, typed.verbose) {
        (true, _) => Loudness::Quiet,
        (false, true) => Loudness::Verbose,
        (false, false) => Loudness::Plain,
    };
    let mut run = |arch: Option<Arch>, task: &Task| {
        let site = site(typed, &manner, arch);
        let mut progress = Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
        task.carry_out(&site, &manner, &mut progress)
    };
    match wanted {
        Wanted::Version => {
            let _ = writeln!(io::stdout(), "{VERSION}");
            0
        }
        Wanted::Status(filter) => {
            if loudness != Loudness::Quiet {
                let site = Site::for_cli(&manner.root);
                status::print(&site, &filter, typed.json, &mut io::stdout(), &mut io::stderr());
            }
            0
        }
        Wanted::Autoinstall(target) => {
            let trees = Site::for_cli(&manner.root).trees;
            let task = Task::autoinstall(&trees, &target.kernel);
            run(Some(target.arch), &task)
        }
        Wanted::PayDebts => run(None, &Task::pay_debts()),
        Wanted::Change(deed, module, kernels) => {
            let tasks = Task::of_deed(deed, &module, &kernels, manner.force);
            let codes = tasks.iter().map(|(arch, task)| run(arch.clone(), task));
            codes.filter(|code| *code != 0).last().unwrap_or(0)
        }
    }
}

fn site(typed: &Typed, manner: &Manner, arch: Option<Arch>) -> Site {
    let mut site = Site::for_cli(&manner.root);
    site.depmod = !typed.no_depmod;
    if let Some(jobs) = typed.jobs {
        site.settings.set_jobs(jobs);
    }
    site.arch = arch.unwrap_or(site.arch);
    site
}

/// The root as an absolute path without links: the kernel and dkms give such ones back.
fn absolute(root: &Path) -> io::Result<PathBuf> {
    env::current_dir()?.join(root).canonicalize()
}

//! The `dkms` command: register, build and install kernel modules from source.

mod args;
mod commands;
mod output;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use dkms_engine::names::Arch;
use dkms_engine::plan::Verb;
use dkms_engine::site::Site;
use nix::sys::stat::{Mode, umask};
use nix::sys::utsname::uname;

use args::intent::Wanted;
use args::options::Id;
use args::parsed::{Stop, Typed};
use args::refusal::Refusal;
use args::subject::{Here, Subject};
use args::{complete, help, machine};
use commands::archive::{self, Arrival};
use commands::change::{self, Manner, Task};
use commands::{cache, generate_mok, initramfs, rpm_upgrade, status};
use output::bars::{Above, Screen};
use output::loudness::Loudness;
use output::progress::Progress;

/// The version of dkms that this one stands for, in the form that scripts parse.
const VERSION: &str = "dkms-3.4.3";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == complete::WORD).is_some() {
        complete::answer(arguments, &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    let (typed, stop) = Typed::read(arguments);
    let level = match (typed.has(Id::Quiet), typed.has(Id::Debug)) {
        (true, _) => log::LevelFilter::Off,
        (false, true) => log::LevelFilter::Debug,
        (false, false) => log::LevelFilter::Warn,
    };
    let screen = Screen::of_this_process(loudness(&typed));
    let log = Above::new(io::stderr(), screen.clone());
    let _ = env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .target(env_logger::Target::Pipe(Box::new(log)))
        .format(|line, record| writeln!(line, "dkms: {}", record.args()))
        .try_init();
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    ExitCode::from(dkms(&typed, stop, screen.as_ref()))
}

fn loudness(typed: &Typed) -> Loudness {
    match (typed.has(Id::Quiet), typed.has(Id::Verbose)) {
        (true, _) => Loudness::Quiet,
        (false, true) => Loudness::Verbose,
        (false, false) => Loudness::Plain,
    }
}

fn dkms(typed: &Typed, stop: Option<Stop>, screen: Option<&Screen>) -> u8 {
    let complain = |text: &str| {
        if !typed.has(Id::Quiet) {
            let _ = writeln!(io::stderr(), "dkms: {text}");
        }
    };
    for option in &typed.deprecated {
        complain(&format!("--{option} is an option of older releases, and does nothing"));
    }
    let understood = machine::site(typed).and_then(|site| {
        if let Some(stop) = stop {
            return stopped(&stop, typed).map(|()| None);
        }
        let kernel = uname().map(|it| it.release().to_string_lossy().into_owned());
        let here = Here {
            kernel: kernel.unwrap_or_default(),
            arch: Arch::of_this_machine(),
            is_root: change::is_root(&site),
            trees: site.trees.clone(),
        };
        Ok(Some((Wanted::read(typed, &here)?, site)))
    });
    let ended = match understood {
        Ok(Some((wanted, site))) => carry_out(wanted, typed, site, screen),
        Ok(None) => Ok(0),
        Err(refusal) => Err(refusal),
    };
    match ended {
        Ok(code) => code,
        Err(refusal) => {
            complain(&refusal.message);
            refusal.code
        }
    }
}

/// What ends a command line where it is read.
fn stopped(stop: &Stop, typed: &Typed) -> Result<(), Refusal> {
    let said = match stop {
        Stop::Version => format!("{VERSION}\n"),
        Stop::Help => help::text(),
        stop => return Err(Refusal { code: stop.exit_code(), message: stop.to_string() }),
    };
    if !typed.has(Id::Quiet) {
        let _ = io::stdout().write_all(said.as_bytes());
    }
    Ok(())
}

fn carry_out(
    wanted: Wanted,
    typed: &Typed,
    mut site: Site,
    screen: Option<&Screen>,
) -> Result<u8, Refusal> {
    let mut out = Above::new(io::stdout(), screen.cloned());
    let mut errors = Above::new(io::stderr(), screen.cloned());
    let manner = Manner {
        dry_run: typed.has(Id::DryRun),
        force: typed.has(Id::Force),
        failure_code: match wanted {
            Wanted::Autoinstall(_) => Some(11),
            Wanted::Clear(..) => Some(14),
            _ => None,
        },
    };
    let loudness = loudness(typed);
    let mut run = |site: &mut Site, arch: Option<Arch>, task: &Task| {
        if site.tools.stop.asked().is_some() {
            return 0; // interrupted before
        }
        site.arch = arch.unwrap_or_else(Arch::of_this_machine);
        let mut progress = Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch)
            .with_bars(screen.cloned());
        task.carry_out(site, &manner, &mut progress)
    };
    let pays = matches!(wanted, Wanted::Autoinstall(_) | Wanted::PayDebts);
    let places =
        pays || matches!(wanted, Wanted::Match { .. } | Wanted::Clear(..) | Wanted::Change(..));
    let code = match wanted {
        Wanted::Status(filter) => {
            if loudness != Loudness::Quiet {
                let json = typed.has(Id::Json);
                status::print(&site, &filter, json, &mut io::stdout(), &mut io::stderr());
            }
            0
        }
        Wanted::Cache => {
            if loudness != Loudness::Quiet {
                cache::print(&site, typed.has(Id::Json), &mut io::stdout());
            }
            0
        }
        Wanted::ClearCache => {
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            cache::clear(&site, &mut progress)
        }
        Wanted::Initramfs => {
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            initramfs::carry_out(&site, manner.dry_run, &mut progress)
        }
        Wanted::GenerateMok(kernel) => {
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            generate_mok::generate(&site, kernel.as_ref(), manner.dry_run, &mut progress)
        }
        Wanted::Autoinstall(target) => {
            let kernel = target.as_ref().map(|target| &target.kernel);
            let task = Task::autoinstall(&site.trees, kernel);
            run(&mut site, target.map(|target| target.arch), &task)
        }
        Wanted::Match { template, target, module } => {
            let task = Task::matching(template, target.kernel, module, manner.force);
            run(&mut site, Some(target.arch), &task)
        }
        Wanted::Clear(target, all) => {
            run(&mut site, Some(target.arch), &Task::clear(target.kernel, !all))
        }
        Wanted::PayDebts => run(&mut site, None, &Task::pay_debts()),
        Wanted::Pack(module, kernels, wrapping) => {
            site.asked.module = Some(module.clone());
            let path = archive::pack(&site, &module, &kernels, &wrapping)?;
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            progress.say(&format!("Tarball location: {}", path.display()));
            0
        }
        Wanted::Change(verb, subject, kernels) => {
            let (module, arrival) = match subject {
                Subject::Module(module) => (module, None),
                path => {
                    change::check_writable(&site)?;
                    let arrival = Arrival::read(&path, &site, &kernels)?;
                    (arrival.import.id.clone(), Some(arrival))
                }
            };
            site.asked.module = Some(module.clone());
            let upgrade = typed.has(Id::RpmSafeUpgrade) && !manner.dry_run;
            if upgrade && rpm_upgrade::keeps(&site, verb, &module)? {
                return Ok(0);
            }
            if let Some(arrival) = arrival {
                let code = run(&mut site, None, &Task::import(&arrival, manner.force));
                // What would follow cannot be planned before the source is there.
                if code != 0 || verb == Verb::Add || manner.dry_run {
                    return Ok(code);
                }
            }
            let tasks = Task::of_verb(verb, &module, &kernels, manner.force, &site.trees);
            let codes = tasks.iter().map(|(arch, task)| run(&mut site, arch.clone(), task));
            codes.filter(|code| *code != 0).last().unwrap_or(0)
        }
    };
    if !places || manner.dry_run || !site.images || site.tools.stop.asked().is_some() {
        return Ok(code);
    }
    let mut progress = Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
    let paid = initramfs::afterwards(&site, pays, &mut progress);
    Ok(if code == 0 { paid } else { code })
}

//! The `dkms` command: register, build and install kernel modules from source.

mod args;
mod commands;
mod output;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use dkms_engine::failure::Failure;
use dkms_engine::names::Arch;
use dkms_engine::plan::Verb;
use dkms_engine::site::Site;
use nix::sys::stat::{Mode, umask};
use nix::sys::utsname::uname;

use args::intent::Intent;
use args::options::OptId;
use args::parsed::{Args, EarlyExit};
use args::subject::{Here, Subject};
use args::{complete, help, machine};
use commands::archive::{self, Arrival};
use commands::change::{self, ChangeOptions, Operation};
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
    let (args, stop) = Args::parse(arguments);
    let level = match (args.has(OptId::Quiet), args.has(OptId::Debug)) {
        (true, _) => log::LevelFilter::Off,
        (false, true) => log::LevelFilter::Debug,
        (false, false) => log::LevelFilter::Warn,
    };
    let screen = Screen::of_this_process(loudness(&args));
    let log = Above::new(io::stderr(), screen.clone());
    let _ = env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .target(env_logger::Target::Pipe(Box::new(log)))
        .format(|line, record| writeln!(line, "dkms: {}", record.args()))
        .try_init();
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    ExitCode::from(dkms(&args, stop, screen.as_ref()))
}

fn loudness(args: &Args) -> Loudness {
    match (args.has(OptId::Quiet), args.has(OptId::Verbose)) {
        (true, _) => Loudness::Quiet,
        (false, true) => Loudness::Verbose,
        (false, false) => Loudness::Plain,
    }
}

fn dkms(args: &Args, stop: Option<EarlyExit>, screen: Option<&Screen>) -> u8 {
    let complain = |text: &str| {
        if !args.has(OptId::Quiet) {
            let _ = writeln!(io::stderr(), "dkms: {text}");
        }
    };
    for option in &args.deprecated {
        complain(&format!("--{option} is an option of older releases, and does nothing"));
    }
    let understood = machine::site(args).and_then(|site| {
        if let Some(stop) = stop {
            return stopped(&stop, args).map(|()| None);
        }
        let kernel = uname().map(|it| it.release().to_string_lossy().into_owned());
        let here = Here {
            kernel: kernel.unwrap_or_default(),
            arch: Arch::of_this_machine(),
            is_root: change::is_root(&site),
            trees: site.trees.clone(),
        };
        Ok(Some((Intent::read(args, &here)?, site)))
    });
    let ended = match understood {
        Ok(Some((wanted, site))) => carry_out(wanted, args, site, screen),
        Ok(None) => Ok(0),
        Err(refusal) => Err(refusal),
    };
    match ended {
        Ok(code) => code,
        Err(refusal) => {
            complain(&refusal.to_string());
            refusal.code
        }
    }
}

/// What ends a command line where it is read.
fn stopped(stop: &EarlyExit, args: &Args) -> Result<(), Failure> {
    let said = match stop {
        EarlyExit::Version => format!("{VERSION}\n"),
        EarlyExit::Help => help::text(),
        stop => return Err(Failure::new(stop.exit_code(), stop.to_string())),
    };
    if !args.has(OptId::Quiet) {
        let _ = io::stdout().write_all(said.as_bytes());
    }
    Ok(())
}

fn carry_out(
    wanted: Intent,
    args: &Args,
    mut site: Site,
    screen: Option<&Screen>,
) -> Result<u8, Failure> {
    let mut out = Above::new(io::stdout(), screen.cloned());
    let mut errors = Above::new(io::stderr(), screen.cloned());
    let options = ChangeOptions {
        dry_run: args.has(OptId::DryRun),
        force: args.has(OptId::Force),
        failure_code: match wanted {
            Intent::Autoinstall(_) => Some(11),
            Intent::Clear(..) => Some(14),
            _ => None,
        },
    };
    let loudness = loudness(args);
    let mut run = |site: &mut Site, arch: Option<Arch>, task: &Operation| {
        if site.tools.stop.asked().is_some() {
            return 0; // interrupted before
        }
        site.arch = arch.unwrap_or_else(Arch::of_this_machine);
        let mut progress = Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch)
            .with_bars(screen.cloned());
        task.carry_out(site, &options, &mut progress)
    };
    let pays = matches!(wanted, Intent::Autoinstall(_) | Intent::FinishPending);
    let places =
        pays || matches!(wanted, Intent::Match { .. } | Intent::Clear(..) | Intent::Change(..));
    let code = match wanted {
        Intent::Status(filter) => {
            if loudness != Loudness::Quiet {
                let json = args.has(OptId::Json);
                status::print(&site, &filter, json, &mut io::stdout(), &mut io::stderr());
            }
            0
        }
        Intent::Cache => {
            if loudness != Loudness::Quiet {
                cache::print(&site, args.has(OptId::Json), &mut io::stdout());
            }
            0
        }
        Intent::ClearCache => {
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            cache::clear(&site, &mut progress)
        }
        Intent::Initramfs => {
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            initramfs::carry_out(&site, options.dry_run, &mut progress)
        }
        Intent::GenerateMok(kernel) => {
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            generate_mok::generate(&site, kernel.as_ref(), options.dry_run, &mut progress)
        }
        Intent::Autoinstall(target) => {
            let kernel = target.as_ref().map(|target| &target.kernel);
            let task = Operation::autoinstall(&site.trees, kernel);
            run(&mut site, target.map(|target| target.arch), &task)
        }
        Intent::Match { template, target, module } => {
            let task = Operation::matching(template, target.kernel, module, options.force);
            run(&mut site, Some(target.arch), &task)
        }
        Intent::Clear(target, all) => {
            run(&mut site, Some(target.arch), &Operation::clear(target.kernel, !all))
        }
        Intent::FinishPending => run(&mut site, None, &Operation::finish_pending()),
        Intent::Pack(module, kernels, wrapping) => {
            site.asked.module = Some(module.clone());
            let path = archive::pack(&site, &module, &kernels, &wrapping)?;
            let mut progress =
                Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
            progress.say(&format!("Tarball location: {}", path.display()));
            0
        }
        Intent::Change(verb, subject, kernels) => {
            let (module, arrival) = match subject {
                Subject::Module(module) => (module, None),
                path => {
                    change::check_writable(&site)?;
                    let arrival = Arrival::read(&path, &site, &kernels)?;
                    (arrival.import.id.clone(), Some(arrival))
                }
            };
            site.asked.module = Some(module.clone());
            let upgrade = args.has(OptId::RpmSafeUpgrade) && !options.dry_run;
            if upgrade && rpm_upgrade::keeps(&site, verb, &module)? {
                return Ok(0);
            }
            if let Some(arrival) = arrival {
                let code = run(&mut site, None, &Operation::import(&arrival, options.force));
                // What would follow cannot be planned before the source is there.
                if code != 0 || verb == Verb::Add || options.dry_run {
                    return Ok(code);
                }
            }
            let tasks = Operation::of_verb(verb, &module, &kernels, options.force, &site.trees);
            let codes = tasks.iter().map(|(arch, task)| run(&mut site, arch.clone(), task));
            codes.filter(|code| *code != 0).last().unwrap_or(0)
        }
    };
    if !places || options.dry_run || !site.images || site.tools.stop.asked().is_some() {
        return Ok(code);
    }
    let mut progress = Progress::new(&mut out, &mut errors, loudness, &site.trees, &site.arch);
    let paid = initramfs::afterwards(&site, pays, &mut progress);
    Ok(if code == 0 { paid } else { code })
}

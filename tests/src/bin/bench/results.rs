//! Collects the measurements of all rounds and computes their medians.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::machine::Side;
use crate::measure::{self, Figure};

/// All measurements.
#[derive(Debug, Default)]
pub(crate) struct Results {
    figures: BTreeMap<(&'static str, Side), Vec<Figure>>,
    floors: BTreeMap<&'static str, Vec<Duration>>,
}

/// The medians of a row, in seconds, or 0 if nothing was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Medians {
    pub ours: f64,
    pub dkms: f64,
    /// The time of pacman without hooks for modules.
    pub pacman: f64,
    /// Our time in the row `bump`, with which the row without the preflight is compared.
    pub upgrade: f64,
    /// Our time in the row `restore-one` without that of pacman, with which the restoration of all
    /// modules is compared.
    pub restored_one: f64,
    /// The CPU time of the compilers divided by the number of cores.
    pub floor: f64,
    /// CPU time.
    pub ours_cpu: f64,
    pub dkms_cpu: f64,
    pub compilers_cpu: f64,
    /// The peak memory of our programs in MiB.
    pub memory: f64,
    /// The least and the greatest ratio of our time to that of dkms within one round, which show
    /// how stable the machine is. `None` if the two were not measured equally often.
    pub ratios: Option<(f64, f64)>,
}

impl Results {
    /// Adds and prints a measurement.
    pub(crate) fn note(&mut self, row: &'static str, side: Side, figure: Figure) {
        let Figure { wall, cpu, .. } = figure;
        eprintln!(
            "  {row} {side:?}: {:.3} s, {:.2} s of CPU time",
            wall.as_secs_f64(),
            cpu.as_secs_f64()
        );
        self.figures.entry((row, side)).or_default().push(figure);
    }

    /// Adds and prints the CPU time of the compilers alone.
    pub(crate) fn note_floor(&mut self, row: &'static str, cpu: Duration) {
        eprintln!("  {row}: compilers alone: {:.2} s of CPU time", cpu.as_secs_f64());
        self.floors.entry(row).or_default().push(cpu);
    }

    pub(crate) fn medians(&self, row: &'static str) -> Medians {
        let median_of = |row, side, value: fn(&Figure) -> f64| {
            let figures = self.figures.get(&(row, side)).into_iter().flatten();
            median(figures.map(value).collect())
        };
        let of = |side, value| median_of(row, side, value);
        let wall_of = |row, side| median_of(row, side, |figure| figure.wall.as_secs_f64());
        let floors = self.floors.get(row).into_iter().flatten();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (cores, memory) = (measure::cores() as f64, |figure: &Figure| figure.memory as f64);
        let compilers_cpu = median(floors.map(Duration::as_secs_f64).collect());
        Medians {
            ours: wall_of(row, Side::Ours),
            dkms: wall_of(row, Side::Dkms),
            pacman: wall_of(row, Side::PacmanOnly),
            upgrade: wall_of("bump", Side::Ours),
            restored_one: wall_of("restore-one", Side::Ours)
                - wall_of("restore-one", Side::PacmanOnly),
            floor: compilers_cpu / cores,
            ours_cpu: of(Side::Ours, |figure| figure.cpu.as_secs_f64()),
            dkms_cpu: of(Side::Dkms, |figure| figure.cpu.as_secs_f64()),
            compilers_cpu,
            memory: of(Side::Ours, memory) / 1024.0,
            ratios: self.ratios(row),
        }
    }

    fn ratios(&self, row: &'static str) -> Option<(f64, f64)> {
        let [ours, dkms] = [Side::Ours, Side::Dkms].map(|side| self.figures.get(&(row, side)));
        let (ours, dkms) = ours.zip(dkms).filter(|(ours, dkms)| ours.len() == dkms.len())?;
        let mut ratios: Vec<f64> = ours
            .iter()
            .zip(dkms)
            .map(|(ours, dkms)| ours.wall.as_secs_f64() / dkms.wall.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        Some((*ratios.first()?, *ratios.last()?))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => 0.0,
    }
}

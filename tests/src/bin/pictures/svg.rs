//! Draws a terminal screen as an SVG picture.

use std::fmt::Write;

use vt100::{Cell, Color, Parser};

/// The colours of a picture.
pub(crate) struct Theme {
    /// The last part of the picture's file name.
    pub(crate) name: &'static str,
    background: &'static str,
    text: &'static str,
    /// The eight colours of ANSI terminals: black, red, green, yellow, blue, magenta, cyan, white.
    palette: [&'static str; 8],
}

pub(crate) const LIGHT: Theme = Theme {
    name: "light",
    background: "#ffffff",
    text: "#1f2328",
    palette: [
        "#1f2328", "#b42318", "#116329", "#7a5200", "#0550ae", "#8250df", "#1b6c80", "#57606a",
    ],
};

pub(crate) const DARK: Theme = Theme {
    name: "dark",
    background: "#0d1117",
    text: "#e6edf3",
    palette: [
        "#6e7681", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", "#e6edf3",
    ],
};

/// The width of a character and the height of a line, in pixels.
const CELL: (f64, f64) = (8.4, 20.0);

/// The space around the text, in pixels.
const MARGIN: f64 = 16.0;

/// Returns the picture of a screen up to its last line with text.
pub(crate) fn picture(screen: &Parser, theme: &Theme) -> String {
    let screen = screen.screen();
    let (rows, columns) = screen.size();
    let has_text = |row: u16| {
        (0..columns).any(|column| screen.cell(row, column).is_some_and(|cell| cell.has_contents()))
    };
    let lines = (0..rows).rev().find(|row| has_text(*row)).map_or(0, |last| last + 1);
    let width = f64::from(columns) * CELL.0 + 2.0 * MARGIN;
    let height = f64::from(lines) * CELL.1 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" \
         font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{}\"/>\n",
        theme.background
    );
    for row in 0..lines {
        let y = MARGIN + (f64::from(row) + 0.75) * CELL.1;
        let cells = (0..columns).filter_map(|column| screen.cell(row, column));
        for (column, style, text) in runs(cells) {
            let x = MARGIN + f64::from(column) * CELL.0;
            let length = f64::from(u16::try_from(text.chars().count()).unwrap_or(0)) * CELL.0;
            let colour = style.colour(theme);
            let weight = if style.is_bold { " font-weight=\"bold\"" } else { "" };
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.0}\" textLength=\"{length:.1}\" fill=\"{colour}\"{weight} \
                 xml:space=\"preserve\">{text}</text>"
            );
        }
    }
    svg + "</svg>\n"
}

/// The style of a character.
#[derive(Clone, Copy, PartialEq)]
struct Style {
    colour: Color,
    is_bold: bool,
    is_faint: bool,
}

impl Style {
    fn of(cell: &Cell) -> Self {
        Self { colour: cell.fgcolor(), is_bold: cell.bold(), is_faint: cell.dim() }
    }

    fn colour(self, theme: &Theme) -> &'static str {
        match self.colour {
            Color::Idx(colour) => theme.palette[usize::from(colour % 8)],
            _ if self.is_faint => theme.palette[7],
            _ => theme.text,
        }
    }
}

/// Splits a line into parts with the same style, and returns the column, the style and the text of each.
/// Omits blanks between the parts and at the end.
fn runs<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<(u16, Style, String)> {
    let mut runs: Vec<(u16, Style, String)> = Vec::new();
    for (column, cell) in (0..).zip(cells) {
        let text = if cell.has_contents() { cell.contents() } else { " " };
        match runs.last_mut() {
            Some((_, style, run)) if *style == Style::of(cell) => run.push_str(text),
            _ => runs.push((column, Style::of(cell), text.to_owned())),
        }
    }
    for (_, _, run) in &mut runs {
        run.truncate(run.trim_end().len());
    }
    runs.retain(|(_, _, run)| !run.is_empty());
    runs
}

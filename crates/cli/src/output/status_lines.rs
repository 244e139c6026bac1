//! The output of `dkms status` on a terminal: coloured lines, each followed by the reasons why the
//! module is not installed.

use std::fmt::Write;

use console::Style;
use dkms_engine::explain::{Explanation, ModuleState};
use dkms_engine::status::Line;

/// Formats the lines for a terminal. With `colours`, includes escape sequences.
///
/// `explanations` contains the explanations for the kernels to show.
pub fn for_terminal(lines: &[Line], explanations: &[Explanation], colours: bool) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        write_line(&mut text, line, colours);
        let module = line.module();
        let of_module = explanations.iter().filter(|it| it.id() == module);
        let of_line = of_module.clone().filter(|it| line.kernel() == Some(&it.kernel));
        of_line.for_each(|it| write_reason(&mut text, it, colours));
        let is_last = lines.get(at + 1).is_none_or(|next| next.module() != module);
        if is_last {
            let is_listed = |it: &&Explanation| {
                let mut all = lines.iter().filter(|other| other.module() == module);
                all.any(|other| other.kernel() == Some(&it.kernel))
            };
            let others = of_module.filter(|it| !is_listed(it));
            others.for_each(|it| write_reason(&mut text, it, colours));
        }
    }
    text
}

fn write_line(text: &mut String, line: &Line, colours: bool) {
    let style = match line {
        Line::Broken(_) => Style::new().red(),
        Line::Installed(_) if !line.has_remarks() => Style::new().green(),
        Line::Installed(_) | Line::Built(_) => Style::new().yellow(),
        Line::Added(_) => Style::new(),
    };
    let line = line.to_string();
    let (subject, state) = line.split_once(": ").unwrap_or((&line, ""));
    let state = style.force_styling(colours).apply_to(state);
    let _ = writeln!(text, "{subject}: {state}");
}

/// Writes why a module is not installed for a kernel, or not from its present source. Writes
/// nothing if no reason is known.
fn write_reason(text: &mut String, explanation: &Explanation, colours: bool) {
    let kernel = &explanation.kernel;
    let (style, reason) = match (explanation.state, &explanation.failure) {
        (ModuleState::Installed, Some(failure)) => {
            (Style::new().yellow(), format!("the latest build failed: {}", failure.problem))
        }
        (ModuleState::Installed | ModuleState::NotAdded, _) => return,
        (ModuleState::Failed, Some(failure)) => {
            (Style::new().red(), format!("failed: {}", failure.problem))
        }
        (state, _) => {
            let is_reason = |note: &&String| !note.starts_with("next: ");
            let note = explanation.notes.iter().find(is_reason).and_then(|it| it.lines().next());
            let note = note.map(|note| note.replacen(&format!(" for {kernel}"), "", 1));
            match (state, note) {
                (ModuleState::Pending | ModuleState::Parked | ModuleState::Failed, note) => {
                    let note = note.map(|note| format!(": {note}")).unwrap_or_default();
                    (Style::new().yellow(), format!("{}{note}", state.name()))
                }
                (_, Some(note)) => (Style::new().dim(), note),
                (_, None) => return,
            }
        }
    };
    let reason = style.force_styling(colours).apply_to(reason);
    let _ = writeln!(text, "  {kernel}: {reason}");
}

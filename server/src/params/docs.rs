//! The tables of `docs/API.md`.

use std::fmt::Write;

use super::{Endpoint, Group, Parameter, of};

const GROUPS: [(Group, &str); 10] = [
    (Group::Input, "Input"),
    (Group::Length, "Length"),
    (Group::Sampling, "Sampling"),
    (Group::Penalties, "Penalties"),
    (Group::Output, "Output"),
    (Group::Structure, "Structure"),
    (Group::Template, "Template"),
    (Group::Serving, "Serving"),
    (Group::NoEffect, "Accepted, without effect by definition"),
    (Group::Refused, "Refused by name, unless the value asks for nothing"),
];

/// All parameters of all endpoints, as Markdown tables.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::new();
    for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| of(*endpoint).next().is_some()) {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## `POST {}`\n", endpoint.path());
        for (group, title) in GROUPS {
            let rows: Vec<_> = of(endpoint).filter(|row| row.group == group).collect();
            if !rows.is_empty() {
                let _ = write!(page, "\n### {title}\n\n{}", table(group, &rows));
            }
        }
    }
    page
}

fn table(group: Group, rows: &[&Parameter]) -> String {
    let mut text = String::new();
    if matches!(group, Group::NoEffect | Group::Refused) {
        text.push_str("| parameter | |\n| --- | --- |\n");
        for row in rows {
            let _ = writeln!(text, "| `{}` | {} |", row.name, cell(row.about));
        }
        return text;
    }
    text.push_str("| parameter | type and range | default | |\n| --- | --- | --- | --- |\n");
    for row in rows {
        let (kind, default, about) = (cell(&row.kind.words()), cell(row.default), cell(row.about));
        let _ = writeln!(text, "| `{}` | {kind} | {default} | {about} |", row.name);
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

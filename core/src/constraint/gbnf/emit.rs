//! Rules to Lark.

use std::fmt::Write as _;

use super::{Grammar, Node};

/// The grammar's text.
pub(super) fn lark(grammar: &Grammar) -> String {
    let mut emitter = Emitter { is_regular: regular(grammar), lexemes: String::new(), n_joined: 0 };
    let mut rules = String::new();
    for (index, rule) in grammar.rules.iter().enumerate() {
        // Writing to a string cannot fail.
        if emitter.is_regular[index] {
            let body = emitter.lexeme(&rule.body);
            let _ = writeln!(emitter.lexemes, "R{index}: {body}");
        } else {
            let body = emitter.rule(&rule.body);
            let _ = writeln!(rules, "r{index}: {body}");
        }
    }
    let root = emitter.name(grammar.root);
    format!("start: {root}\n{rules}{}", emitter.lexemes)
}

/// By rule: whether no recursion can be reached from it.
fn regular(grammar: &Grammar) -> Vec<bool> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); grammar.rules.len()];
    let mut n_open: Vec<usize> = vec![0; grammar.rules.len()];
    for (index, rule) in grammar.rules.iter().enumerate() {
        let mut uses = Vec::new();
        collect_rules(&rule.body, &mut uses);
        uses.sort_unstable();
        uses.dedup();
        n_open[index] = uses.len();
        for used in uses {
            users[used].push(index);
        }
    }
    // From rules that use none upwards; those in a circle, or above one, are never reached.
    let mut ready: Vec<usize> = (0..grammar.rules.len()).filter(|index| n_open[*index] == 0).collect();
    let mut is_regular = vec![false; grammar.rules.len()];
    while let Some(index) = ready.pop() {
        is_regular[index] = true;
        for &user in &users[index] {
            n_open[user] -= 1;
            if n_open[user] == 0 {
                ready.push(user);
            }
        }
    }
    is_regular
}

fn collect_rules(node: &Node, found: &mut Vec<usize>) {
    match node {
        Node::Rule(index) => found.push(*index),
        Node::Sequence(parts) | Node::Choice(parts) => {
            parts.iter().for_each(|part| collect_rules(part, found))
        }
        Node::Repeat { node, .. } => collect_rules(node, found),
        Node::Literal(_) | Node::Class { .. } | Node::Any => {}
    }
}

struct Emitter {
    is_regular: Vec<bool>,
    /// Definitions of lexemes so far.
    lexemes: String,
    n_joined: usize,
}

impl Emitter {
    fn name(&self, index: usize) -> String {
        let letter = if self.is_regular[index] { 'R' } else { 'r' };
        format!("{letter}{index}")
    }

    fn regular_node(&self, node: &Node) -> bool {
        match node {
            Node::Rule(index) => self.is_regular[*index],
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().all(|part| self.regular_node(part)),
            Node::Repeat { node, .. } => self.regular_node(node),
            Node::Literal(_) | Node::Class { .. } | Node::Any => true,
        }
    }

    /// A regular node as it stands in a lexeme's definition.
    fn lexeme(&self, node: &Node) -> String {
        match node {
            Node::Literal(text) => literal(text),
            Node::Class { negated, ranges } => class(*negated, ranges),
            Node::Any => "/(?s:.)/".to_owned(),
            Node::Rule(index) => self.name(*index),
            Node::Sequence(parts) if parts.is_empty() => "\"\"".to_owned(),
            Node::Sequence(parts) => joined(parts.iter().map(|part| self.lexeme(part)), " "),
            Node::Choice(parts) => joined(parts.iter().map(|part| self.lexeme(part)), " | "),
            Node::Repeat { node, least, most } => repeat(&self.lexeme(node), *least, *most),
        }
    }

    /// Any node as it stands in a rule.
    fn rule(&mut self, node: &Node) -> String {
        if self.regular_node(node) {
            return self.join(std::slice::from_ref(node));
        }
        match node {
            Node::Sequence(parts) => {
                let mut texts = Vec::new();
                let mut rest = parts.as_slice();
                while let Some(first) = rest.first() {
                    let n = rest.iter().take_while(|part| self.regular_node(part)).count();
                    if n == 0 {
                        texts.push(self.rule(first));
                        rest = &rest[1..];
                    } else {
                        texts.push(self.join(&rest[..n]));
                        rest = &rest[n..];
                    }
                }
                joined(texts.into_iter(), " ")
            }
            Node::Choice(parts) => {
                let texts: Vec<String> = parts.iter().map(|part| self.rule(part)).collect();
                joined(texts.into_iter(), " | ")
            }
            Node::Repeat { node, least, most } => repeat(&self.rule(node), *least, *most),
            Node::Rule(index) => self.name(*index),
            Node::Literal(_) | Node::Class { .. } | Node::Any => self.lexeme(node),
        }
    }

    /// Neighbours that are regular, as one lexeme.
    fn join(&mut self, parts: &[Node]) -> String {
        match parts {
            [Node::Rule(index)] => return self.name(*index),
            [Node::Literal(text)] => return literal(text),
            [Node::Sequence(none)] if none.is_empty() => return literal(""),
            _ => {}
        }
        let body = joined(parts.iter().map(|part| self.lexeme(part)), " ");
        let name = format!("J{}", self.n_joined);
        self.n_joined += 1;
        let _ = writeln!(self.lexemes, "{name}: {body}");
        name
    }
}

fn joined(texts: impl Iterator<Item = String>, separator: &str) -> String {
    format!("({})", texts.collect::<Vec<_>>().join(separator))
}

fn repeat(text: &str, least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => format!("({text})*"),
        (1, None) => format!("({text})+"),
        (0, Some(1)) => format!("({text})?"),
        (_, Some(0)) => "\"\"".to_owned(),
        (least, None) => format!("({text}){{{least},}}"),
        (least, Some(most)) => format!("({text}){{{least},{most}}}"),
    }
}

/// In JSON's notation, which Lark reads. DEL is not among what may stand there as it is.
pub(in crate::constraint) fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn class(negated: bool, ranges: &[(char, char)]) -> String {
    let mut text = String::from(if negated { "/[^" } else { "/[" });
    for &(low, high) in ranges {
        let _ = write!(text, "\\u{{{:x}}}-\\u{{{:x}}}", u32::from(low), u32::from(high));
    }
    text.push_str("]/");
    text
}

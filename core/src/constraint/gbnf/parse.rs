//! GBNF text to rules.

use std::collections::HashMap;

use super::{Grammar, MOST_REPEATS, Node, Rule};
use crate::constraint::ConstraintError;

/// Reads a whole grammar.
pub(super) fn grammar(text: &str) -> Result<Grammar, ConstraintError> {
    let mut parser = Parser { text, at: 0, names: HashMap::new(), bodies: Vec::new(), first_use: Vec::new() };
    parser.blanks(true);
    while parser.at < text.len() {
        parser.rule()?;
        parser.blanks(true);
    }
    parser.finish()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    names: HashMap<&'a str, usize>,
    bodies: Vec<Option<Node>>,
    /// By rule: where it was first named.
    first_use: Vec<usize>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn error(&self, message: &str) -> ConstraintError {
        self.error_at(self.at, message)
    }

    fn error_at(&self, at: usize, message: &str) -> ConstraintError {
        let line = 1 + self.text[..at].matches('\n').count();
        ConstraintError::invalid(format!("the GBNF grammar is wrong in line {line}: {message}"))
    }

    /// Skips blanks and comments, line ends only where `lines`.
    fn blanks(&mut self, lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\r' | '\n') if lines => self.at += 1,
                Some('#') => self.at += self.rest().find(['\r', '\n']).unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let length = self.rest().find(|c| !is_part(c)).unwrap_or(self.rest().len());
        let name = &self.rest()[..length];
        self.at += length;
        (length > 0).then_some(name)
    }

    fn index(&mut self, name: &'a str) -> usize {
        let next = self.bodies.len();
        let index = *self.names.entry(name).or_insert(next);
        if index == next {
            self.bodies.push(None);
            self.first_use.push(self.at);
        }
        index
    }

    fn rule(&mut self) -> Result<(), ConstraintError> {
        let Some(name) = self.name() else { return Err(self.error("a rule's name should be here")) };
        self.blanks(false);
        if !self.take("::=") {
            return Err(self.error("`::=` should be here"));
        }
        let index = self.index(name);
        if self.bodies[index].is_some() {
            return Err(self.error(&format!("rule `{name}` is there already")));
        }
        self.blanks(true);
        let body = self.choice(false)?;
        self.bodies[index] = Some(body);
        match self.peek() {
            None | Some('\r' | '\n') => Ok(()),
            Some(other) => Err(self.error(&format!("`{other}` cannot be here"))),
        }
    }

    /// Alternatives; inside of parentheses they may go on over line ends.
    fn choice(&mut self, nested: bool) -> Result<Node, ConstraintError> {
        let mut alternatives = vec![self.sequence(nested)?];
        while self.take("|") {
            self.blanks(true);
            alternatives.push(self.sequence(nested)?);
        }
        Ok(match alternatives.len() {
            1 => alternatives.remove(0),
            _ => Node::Choice(alternatives),
        })
    }

    fn sequence(&mut self, nested: bool) -> Result<Node, ConstraintError> {
        let mut parts = Vec::new();
        self.blanks(nested);
        while let Some(part) = self.atom()? {
            let part = self.repeated(part, nested)?;
            parts.push(part);
            self.blanks(nested);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Node::Sequence(parts),
        })
    }

    fn atom(&mut self) -> Result<Option<Node>, ConstraintError> {
        Ok(Some(match self.peek() {
            Some('"') => self.literal()?,
            Some('[') => self.class()?,
            Some('(') => {
                self.at += 1;
                let inner = self.choice(true)?;
                if !self.take(")") {
                    return Err(self.error("`)` should be here"));
                }
                inner
            }
            Some('.') => {
                self.at += 1;
                Node::Any
            }
            Some('<' | '!') => return Err(self.error("tokens in grammars are not supported")),
            Some(c) if c.is_ascii_alphanumeric() || c == '-' || c == '_' => {
                let Some(name) = self.name() else { return Ok(None) };
                Node::Rule(self.index(name))
            }
            _ => return Ok(None),
        }))
    }

    fn repeated(&mut self, mut node: Node, nested: bool) -> Result<Node, ConstraintError> {
        loop {
            let before = self.at;
            self.blanks(nested);
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    self.at += 1;
                    self.bounds()?
                }
                _ => {
                    self.at = before;
                    return Ok(node);
                }
            };
            self.at += 1; // the sign, or the closing brace
            node = Node::Repeat { node: Box::new(node), least, most };
        }
    }

    /// What stands between braces, up to the closing one.
    fn bounds(&mut self) -> Result<(u32, Option<u32>), ConstraintError> {
        let start = self.at;
        let Some(length) = self.rest().find('}') else { return Err(self.error("`}` is missing")) };
        let inner = &self.rest()[..length];
        let number = |text: &str| match text.trim().parse::<u32>() {
            Ok(n) if n <= MOST_REPEATS => Ok(n),
            Ok(_) => Err(self.error(&format!("more than {MOST_REPEATS} repetitions"))),
            Err(_) => Err(self.error("a number should be between the braces")),
        };
        let bounds = match inner.split_once(',') {
            None => {
                let n = number(inner)?;
                (n, Some(n))
            }
            Some((least, most)) => {
                let least = if least.trim().is_empty() { 0 } else { number(least)? };
                (least, if most.trim().is_empty() { None } else { Some(number(most)?) })
            }
        };
        if bounds.1.is_some_and(|most| most < bounds.0) {
            return Err(self.error("the most is less than the least"));
        }
        self.at = start + length;
        Ok(bounds)
    }

    fn literal(&mut self) -> Result<Node, ConstraintError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(Node::Literal(text));
                }
                None | Some('\r' | '\n') => return Err(self.error_at(start, "a text is not closed")),
                Some(_) => text.push(self.character()?),
            }
        }
    }

    fn class(&mut self) -> Result<Node, ConstraintError> {
        let start = self.at;
        self.at += 1;
        let negated = self.take("^");
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                Some(']') => break self.at += 1,
                None | Some('\r' | '\n') => return Err(self.error_at(start, "`[` is not closed")),
                Some(_) => {}
            }
            let low = self.character()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let high = if is_range {
                self.at += 1;
                self.character()?
            } else {
                low
            };
            if high < low {
                return Err(self.error_at(start, "a range goes backwards"));
            }
            ranges.push((low, high));
        }
        match ranges.is_empty() {
            true => Err(self.error_at(start, "`[]` has no characters")),
            false => Ok(Node::Class { negated, ranges }),
        }
    }

    /// One character of a text or class, escaped or not.
    fn character(&mut self) -> Result<char, ConstraintError> {
        let Some(first) = self.peek() else { return Err(self.error("the grammar ends too early")) };
        self.at += first.len_utf8();
        if first != '\\' {
            return Ok(first);
        }
        let Some(escaped) = self.peek() else { return Err(self.error("the grammar ends too early")) };
        self.at += escaped.len_utf8();
        match escaped {
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'x' => self.hexadecimal(2),
            'u' => self.hexadecimal(4),
            'U' => self.hexadecimal(8),
            '\\' | '"' | '[' | ']' | '-' | '^' | '/' => Ok(escaped),
            other => Err(self.error(&format!("`\\{other}` is no escape"))),
        }
    }

    fn hexadecimal(&mut self, n_digits: usize) -> Result<char, ConstraintError> {
        let digits = self.rest().get(..n_digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(character) = number.and_then(char::from_u32) else {
            return Err(self.error(&format!("{n_digits} hexadecimal digits of a character should be here")));
        };
        self.at += n_digits;
        Ok(character)
    }

    fn finish(self) -> Result<Grammar, ConstraintError> {
        let Some(&root) = self.names.get("root") else {
            return Err(ConstraintError::invalid("the GBNF grammar has no rule `root`"));
        };
        let mut names: Vec<(&str, usize)> = self.names.iter().map(|(name, index)| (*name, *index)).collect();
        names.sort_unstable_by_key(|(_, index)| *index);
        for (name, index) in names {
            if self.bodies[index].is_none() {
                return Err(self.error_at(self.first_use[index], &format!("there is no rule `{name}`")));
            }
        }
        let rules = self.bodies.into_iter().flatten().map(|body| Rule { body }).collect();
        Ok(Grammar { rules, root })
    }
}

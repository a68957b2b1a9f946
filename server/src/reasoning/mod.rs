//! A model's thinking, split from its answer.

#[cfg(test)]
mod tests;

use crate::tools::parse::Matcher;

/// What thinking stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `<think>`: DeepSeek, Qwen, GLM and most others.
    Think,
    /// `[THINK]`: Mistral.
    Mistral,
    /// `<|channel>thought`: Gemma 4.
    Gemma,
    /// `<seed:think>`.
    Seed,
    /// `◁think▷`: Kimi's vision models.
    Kimi,
}

/// Where an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Outside: the model may open its thinking.
    Outside,
    /// Inside: the prompt has opened it.
    Inside,
}

impl Tags {
    const ALL: [Self; 5] = [Self::Think, Self::Mistral, Self::Gemma, Self::Seed, Self::Kimi];

    /// Names that settings may give.
    pub(crate) const NAMES: [(&'static str, Self); 5] = [
        ("think", Self::Think),
        ("mistral", Self::Mistral),
        ("gemma", Self::Gemma),
        ("seed", Self::Seed),
        ("kimi", Self::Kimi),
    ];

    /// Opening and closing tag.
    pub(crate) fn pair(self) -> &'static [&'static str; 2] {
        match self {
            Self::Think => &["<think>", "</think>"],
            Self::Mistral => &["[THINK]", "[/THINK]"],
            Self::Gemma => &["<|channel>thought\n", "<channel|>"],
            Self::Seed => &["<seed:think>", "</seed:think>"],
            Self::Kimi => &["◁think▷", "◁/think▷"],
        }
    }

    /// Those that a chat template speaks of.
    pub(crate) fn of_template(source: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tags| source.contains(tags.pair()[1]))
    }

    /// Whether this prompt ends inside of thinking.
    pub(crate) fn start(self, prompt: &str) -> Start {
        if prompt.trim_end().ends_with(self.pair()[0].trim_end()) { Start::Inside } else { Start::Outside }
    }
}

enum State {
    /// Nothing has come but white space and the beginning of a tag.
    Before(String),
    Inside,
    /// White space behind the thinking.
    Gap,
    After,
}

/// Splits one answer. Only thinking at its beginning counts: a model that speaks of `<think>` later is quoting.
pub(crate) struct Split {
    tags: Tags,
    state: State,
    matcher: Matcher,
    text: String,
    /// White space at the end of what has come of the thinking.
    space: String,
    begun: bool,
}

impl Split {
    pub(crate) fn new(tags: Tags, start: Start) -> Self {
        let state = match start {
            Start::Outside => State::Before(String::new()),
            Start::Inside => State::Inside,
        };
        let matcher = Matcher::new(tags.pair());
        Self { tags, state, matcher, text: String::new(), space: String::new(), begun: false }
    }

    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.state, State::Inside)
    }

    /// Adds to `content` what belongs to the answer, and gives `reasoning` the rest.
    pub(crate) fn push(&mut self, c: char, content: &mut String, reasoning: &mut impl FnMut(&str)) {
        match &mut self.state {
            State::After => content.push(c),
            State::Gap if c.is_whitespace() => {}
            State::Gap => {
                self.state = State::After;
                content.push(c);
            }
            State::Before(lead) => {
                lead.push(c);
                let seen = lead.trim_start();
                let open = self.tags.pair()[0];
                if seen == open {
                    self.state = State::Inside;
                } else if !open.starts_with(seen) {
                    content.push_str(lead);
                    self.state = State::After;
                }
            }
            State::Inside => {
                let tag = self.matcher.push(c, &mut self.text);
                self.think(reasoning);
                match tag {
                    Some(1) => {
                        self.space.clear();
                        self.state = State::Gap;
                    }
                    // Some models repeat the tag that the prompt ends with; elsewhere it is a quotation.
                    Some(_) if self.begun => {
                        self.text.push_str(self.tags.pair()[0]);
                        self.think(reasoning);
                    }
                    _ => {}
                }
            }
        }
    }

    /// White space around the thinking is left out.
    fn think(&mut self, reasoning: &mut impl FnMut(&str)) {
        for c in self.text.drain(..) {
            if c.is_whitespace() {
                if self.begun {
                    self.space.push(c);
                }
                continue;
            }
            self.begun = true;
            reasoning(&self.space);
            self.space.clear();
            reasoning(c.encode_utf8(&mut [0; 4]));
        }
    }

    /// What was held back.
    pub(crate) fn finish(&mut self, content: &mut String, reasoning: &mut impl FnMut(&str)) {
        match &mut self.state {
            State::Before(lead) => content.push_str(lead),
            State::Inside => {
                self.text.push_str(&self.matcher.flush());
                self.think(reasoning);
            }
            State::Gap | State::After => {}
        }
        self.state = State::After;
    }
}

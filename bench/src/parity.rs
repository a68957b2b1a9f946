//! Whether two tokenizers are the same one: equal ids have to mean equal text, or the arms get different work.
//!
//! Tokenizer parity is a test of its own and never mixed into a measurement: a pair that fails it is refused, with the
//! first difference.

use std::fmt;

use duet_core::text::{EncodeOptions, TokenId, Tokenizer, TokenizerError};

/// Texts on which tokenizers of one family part: digits, runs of spaces, casing, contractions, scripts, emoji with
/// modifiers, line ends, code, a character outside of the basic plane, combining marks.
pub const PROBES: [&str; 12] = [
    "Hello, world!",
    "The 3 cats paid 1234567.89 € at 09:05.",
    "  two leading and three   inner spaces, a trailing one ",
    "don't DON'T we'll I'D it's 'tis",
    "line\nline\r\nline\n\n\n  indented\tand tabbed",
    "fn main() { let x = vec![0u8; 1 << 20]; /* ok */ }",
    "naïve café — “quoted” … e\u{301}",
    "Москва слезам не верит",
    "東京は日本の首都です。カタカナ 한국어 ไทย",
    "العربية עברית हिन्दी",
    "👩‍👩‍👧‍👦 👍🏽 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🇫🇷",
    "<|im_start|>user\n<s>[INST] not special [/INST]</s>",
];

/// The first thing in which two tokenizers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Highest id + 1.
    VocabularySize {
        /// Of the first tokenizer.
        a: u32,
        /// Of the second.
        b: u32,
    },
    /// The bytes behind an id.
    TokenBytes {
        /// The id.
        id: TokenId,
        /// In the first tokenizer; `None`: a hole.
        a: Option<Vec<u8>>,
        /// In the second.
        b: Option<Vec<u8>>,
    },
    /// Whether an id is a control token.
    Control {
        /// The id.
        id: TokenId,
        /// In the first tokenizer.
        a: bool,
        /// In the second.
        b: bool,
    },
    /// A special id or setting.
    Special {
        /// Which one.
        what: &'static str,
        /// In the first tokenizer.
        a: String,
        /// In the second.
        b: String,
    },
    /// The ids of a text.
    Encoding {
        /// The text, cut to where it matters.
        text: String,
        /// Index of the first id that differs.
        index: usize,
        /// What the first tokenizer gives from there, up to 8 ids.
        a: Vec<TokenId>,
        /// What the second gives.
        b: Vec<TokenId>,
    },
}

fn shown(bytes: &Option<Vec<u8>>) -> String {
    match bytes {
        None => "no token".to_owned(),
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VocabularySize { a, b } => write!(f, "the vocabularies have {a} and {b} ids"),
            Self::TokenBytes { id, a, b } => write!(f, "token {id} is {} and {}", shown(a), shown(b)),
            Self::Control { id, a, b } => {
                let word = |control: &bool| if *control { "a control token" } else { "text" };
                write!(f, "token {id} is {} and {}", word(a), word(b))
            }
            Self::Special { what, a, b } => write!(f, "{what}: {a} and {b}"),
            Self::Encoding { text, index, a, b } => {
                write!(f, "the ids of {text:?} differ from number {index} on: {a:?} and {b:?}")
            }
        }
    }
}

/// The first difference between two tokenizers, or `None` if they agree on vocabulary, special ids, the [`PROBES`] and
/// all of `text`. Costs a pass over the vocabulary and two encodings of each text.
///
/// # Errors
/// Where one of them cannot encode a text at all.
pub fn first_difference(
    a: &dyn Tokenizer,
    b: &dyn Tokenizer,
    text: &str,
) -> Result<Option<Difference>, TokenizerError> {
    let found = vocabularies(a, b).or_else(|| specials(a, b));
    if found.is_some() {
        return Ok(found);
    }
    let plain = EncodeOptions { add_special: true, parse_special: false };
    let parsed = EncodeOptions { add_special: false, parse_special: true };
    for probe in PROBES {
        for options in [plain, parsed] {
            if let Some(difference) = encodings(a, b, probe, options)? {
                return Ok(Some(difference));
            }
        }
    }
    encodings(a, b, text, plain)
}

fn vocabularies(a: &dyn Tokenizer, b: &dyn Tokenizer) -> Option<Difference> {
    let (size_a, size_b) = (a.vocab_size(), b.vocab_size());
    if size_a != size_b {
        return Some(Difference::VocabularySize { a: size_a, b: size_b });
    }
    for id in 0..size_a {
        let (bytes_a, bytes_b) = (a.token_bytes(id), b.token_bytes(id));
        if bytes_a != bytes_b {
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            return Some(Difference::TokenBytes { id, a: owned(bytes_a), b: owned(bytes_b) });
        }
        if a.is_control(id) != b.is_control(id) {
            return Some(Difference::Control { id, a: a.is_control(id), b: b.is_control(id) });
        }
    }
    None
}

fn specials(a: &dyn Tokenizer, b: &dyn Tokenizer) -> Option<Difference> {
    let of = |t: &dyn Tokenizer| {
        [
            ("beginning of sequence", format!("{:?}", t.bos())),
            ("end of sequence", format!("{:?}", t.eos())),
            ("adds a beginning of sequence", t.adds_bos().to_string()),
            ("end-of-generation ids", format!("{:?}", t.end_of_generation())),
            ("strips a leading space", t.strips_leading_space().to_string()),
        ]
    };
    let (of_a, of_b) = (of(a), of(b));
    of_a.into_iter()
        .zip(of_b)
        .find(|((_, a), (_, b))| a != b)
        .map(|((what, a), (_, b))| Difference::Special { what, a, b })
}

fn encodings(
    a: &dyn Tokenizer,
    b: &dyn Tokenizer,
    text: &str,
    options: EncodeOptions,
) -> Result<Option<Difference>, TokenizerError> {
    let (ids_a, ids_b) = (a.encode(text, options)?, b.encode(text, options)?);
    if ids_a == ids_b {
        return Ok(None);
    }
    let index = ids_a.iter().zip(&ids_b).take_while(|(a, b)| a == b).count();
    let tail = |ids: &[TokenId]| ids[index..].iter().take(8).copied().collect();
    Ok(Some(Difference::Encoding {
        text: around(a, text, &ids_a[..index]),
        index,
        a: tail(&ids_a),
        b: tail(&ids_b),
    }))
}

/// The part of `text` that follows the ids both agree on, as well as that can be told, at most 40 characters.
fn around(tokenizer: &dyn Tokenizer, text: &str, equal: &[TokenId]) -> String {
    let text_ids = equal.iter().filter(|id| !tokenizer.is_control(**id));
    let n_bytes: usize = text_ids.filter_map(|id| tokenizer.token_bytes(*id)).map(<[u8]>::len).sum();
    let mut from = n_bytes.min(text.len());
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    let rest = if from == text.len() { text } else { &text[from..] };
    rest.chars().take(40).collect()
}

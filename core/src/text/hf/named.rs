//! Tokens that steer a model and are known by their written form alone.
//!
//! Many models name one end of theirs in their files, or none, and mark the rest as ordinary text; llama.cpp goes by
//! name as well. The names and exceptions here are those of its `llama-vocab.cpp`, so that a model ends at the same tokens
//! in both of its formats. Knows nothing of files: a vocabulary goes in, ids come out.

use std::collections::{BTreeSet, HashMap};

use crate::text::{FillInMiddle, TokenId};

/// They end a turn or a text wherever they occur.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Where code models that fill in the middle go on to the next file or repository, which is an end too: padding,
/// repository, file. Of each kind one counts.
const FILE_ENDS: [&[&str]; 3] = [
    &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    &["<|file_sep|>"],
];

/// What stands between the parts of a file with a gap, hidden like the ends: before, after, the gap itself.
const GAPS: [&[&str]; 3] = [
    &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ],
    &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ],
    &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ],
];

/// The ids that end a generation: those `given` by the model's files and those known by name.
pub(super) fn ends(vocab: &HashMap<String, TokenId>, given: BTreeSet<TokenId>) -> BTreeSet<TokenId> {
    let id = |name: &str| vocab.get(name).copied();
    let mut ends = given.clone();
    ends.extend(by_name(vocab));
    let has = |name| id(name).is_some_and(|id| ends.contains(&id));
    let calls = has("<|call|>") || has("<|calls|>");
    // Where answers have channels, it ends one message within an answer.
    let end_is_inner = calls && (has("<|return|>") || has("<|flush|>"));
    // Text in vocabularies that have an end of their own.
    let s_is_text = has("<|tool_response>") || has("<|plamo:eos|>");
    for (name, is_none) in [("<|end|>", end_is_inner), ("</s>", s_is_text)] {
        if let Some(id) = id(name).filter(|id| is_none && !given.contains(id)) {
            ends.remove(&id);
        }
    }
    ends
}

/// The ids that steer the model by their name, whatever the tokenizer's file says: not shown, and not read out of plain
/// text. Of the names of ends, those that are among these `ends`.
pub(super) fn control(vocab: &HashMap<String, TokenId>, ends: &[TokenId]) -> BTreeSet<TokenId> {
    let gaps = GAPS.iter().filter_map(|kind| first(vocab, kind));
    by_name(vocab).filter(|id| ends.contains(id)).chain(gaps).collect()
}

/// The marks of a file with a gap, where all three are there.
pub(super) fn fill_in_middle(vocab: &HashMap<String, TokenId>) -> Option<FillInMiddle> {
    let [prefix, suffix, middle] = GAPS.map(|kind| first(vocab, kind));
    Some(FillInMiddle { prefix: prefix?, suffix: suffix?, middle: middle? })
}

/// Every id that has the name of an end.
fn by_name(vocab: &HashMap<String, TokenId>) -> impl Iterator<Item = TokenId> {
    let ends = ENDS.into_iter().filter_map(|name| vocab.get(name).copied());
    ends.chain(FILE_ENDS.iter().filter_map(|kind| first(vocab, kind)))
}

/// llama.cpp takes whichever comes first in a table without order; the lowest id is one of these.
fn first(vocab: &HashMap<String, TokenId>, names: &[&str]) -> Option<TokenId> {
    names.iter().filter_map(|name| vocab.get(*name)).min().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], given: &[TokenId], ends_: &[TokenId], control_: &[TokenId]) {
        let vocab: HashMap<String, TokenId> = names.iter().map(|name| (*name).to_owned()).zip(0..).collect();
        let found: Vec<TokenId> = ends(&vocab, given.iter().copied().collect()).into_iter().collect();
        assert_eq!(found, ends_, "ends");
        assert_eq!(control(&vocab, &found).into_iter().collect::<Vec<_>>(), control_, "control");
    }

    #[test]
    fn names_tell_ends_from_other_tokens() {
        check(&[], &[], &[], &[]);
        check(&["a", "<s>", "<|im_start|>", "</S>", "<|im_end|> "], &[], &[], &[]);
        check(&["a", "<|im_end|>", "b", "</s>"], &[0], &[0, 1, 3], &[1, 3]);
        // SmolLM2: `<repo_name>` is none of the names.
        check(&["<|endoftext|>", "<|im_end|>", "<repo_name>", "<reponame>"], &[1], &[0, 1, 3], &[0, 1, 3]);
    }

    #[test]
    fn a_gap_has_three_marks() {
        let marks =
            |names: &[&str]| fill_in_middle(&names.iter().map(|name| (*name).to_owned()).zip(0..).collect());
        for names in [["<PRE>", "<SUF>", "<MID>"], ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]] {
            assert_eq!(marks(&names), Some(FillInMiddle { prefix: 0, suffix: 1, middle: 2 }));
            assert_eq!(marks(&names[..2]), None);
        }
        let deepseek = ["a", "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"];
        assert_eq!(marks(&deepseek), Some(FillInMiddle { prefix: 2, suffix: 1, middle: 3 }));
        assert_eq!(marks(&["fim_prefix", "<SUF", "<|MID|>"]), None);
    }

    #[test]
    fn of_the_files_ends_each_kind_counts_once() {
        check(&["<|file_sep|>", "<|repo_name|>", "<|fim_pad|>"], &[], &[0, 1, 2], &[0, 1, 2]);
        check(&["<REPO>", "<|repo_name|>", "<PAD>", "<fim_pad>"], &[], &[0, 2], &[0, 2]);
        check(&["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<PRE>"], &[], &[], &[0, 1, 2]);
    }

    #[test]
    fn an_end_within_an_answer_is_none() {
        check(&["<|end|>", "<|return|>"], &[], &[0, 1], &[0, 1]);
        check(&["<|end|>", "<|return|>", "<|call|>"], &[], &[1, 2], &[1, 2]);
        check(&["<|end|>", "<|flush|>", "<|calls|>"], &[], &[1, 2], &[1, 2]);
        check(&["<|end|>", "<|flush|>"], &[], &[0, 1], &[0, 1]);
        check(&["<|end|>", "<|return|>", "<|call|>"], &[0], &[0, 1, 2], &[0, 1, 2]);
        check(&["</s>", "<|tool_response>"], &[], &[1], &[1]);
        check(&["</s>", "<|plamo:eos|>"], &[], &[0], &[0]);
        check(&["</s>", "<|plamo:eos|>"], &[1], &[1], &[]);
    }
}

//! Names that may have been meant.

/// Names within a third of the length in edits, nearest first.
pub(crate) fn near<'a>(word: &str, known: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let lower = word.to_lowercase();
    let mut scored: Vec<(usize, &str)> = known
        .filter_map(|name| {
            let other = name.to_lowercase();
            let distance = strsim::damerau_levenshtein(&lower, &other);
            let longest = lower.chars().count().max(other.chars().count());
            // A name that begins with the word (or the other way round) is near, however long its rest: "qwen3" of
            // "qwen3-0.6b-q4_k_m".
            let prefix = lower.len() >= 2
                && other.len() >= 2
                && (other.starts_with(&lower) || lower.starts_with(&other));
            (prefix || distance * 3 <= longest).then_some((distance, name))
        })
        .collect();
    scored.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(most).map(|(_, name)| name).collect()
}

/// The nearest name, if one is near.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    near(word, known, 1).first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: &[&str]) {
        let known = ["context", "parallel", "kv_tokens", "kv_type", "qwen3-0.6b-q4_k_m"];
        assert_eq!(near(word, known.into_iter(), 2), expected);
    }

    #[test]
    fn typing_errors_are_near_and_other_words_are_not() {
        check("contxt", &["context"]);
        check("Context", &["context"]);
        check("kv_tokes", &["kv_tokens"]);
        check("qwen3", &["qwen3-0.6b-q4_k_m"]);
        check("temperature", &[]);
        check("", &[]);
        check("x", &[]);
    }
}

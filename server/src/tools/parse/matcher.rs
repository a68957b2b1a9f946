//! Finds fixed markers in text that comes character by character; holds back what may become one.

/// Looks for the first of several markers, none of which is the beginning of another.
#[derive(Debug)]
pub(crate) struct Matcher {
    markers: &'static [&'static str],
    pending: String,
}

impl Matcher {
    pub(crate) fn new(markers: &'static [&'static str]) -> Self {
        Self { markers, pending: String::new() }
    }

    /// Adds text that is no part of a marker to `text`; gives the index of a marker that `c` completes.
    pub(crate) fn push(&mut self, c: char, text: &mut String) -> Option<usize> {
        if self.pending.is_empty() && !self.markers.iter().any(|marker| marker.starts_with(c)) {
            text.push(c);
            return None;
        }
        self.pending.push(c);
        loop {
            if let Some(index) = self.markers.iter().position(|marker| *marker == self.pending) {
                self.pending.clear();
                return Some(index);
            }
            if self.markers.iter().any(|marker| marker.starts_with(&self.pending)) {
                return None;
            }
            text.push(self.pending.remove(0));
        }
    }

    /// Whether nothing is held back.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The beginning of a marker that did not come.
    pub(crate) fn flush(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(markers: &'static [&'static str], given: &str, expected: &[Result<&str, usize>]) {
        let mut matcher = Matcher::new(markers);
        let (mut found, mut text) = (Vec::new(), String::new());
        for c in given.chars() {
            let marker = matcher.push(c, &mut text);
            if let Some(index) = marker {
                found.extend((!text.is_empty()).then(|| Ok(std::mem::take(&mut text))));
                found.push(Err(index));
            }
        }
        text.push_str(&matcher.flush());
        found.extend((!text.is_empty()).then_some(Ok(text)));
        let found: Vec<_> = found.iter().map(|item| item.as_deref().map_err(|index| *index)).collect();
        assert_eq!(found, expected, "{given:?}");
    }

    #[test]
    fn markers_and_what_only_looks_like_them() {
        check(&["<a>"], "", &[]);
        check(&["<a>"], "x<a>y", &[Ok("x"), Err(0), Ok("y")]);
        check(&["<a>"], "<<a><", &[Ok("<"), Err(0), Ok("<")]);
        check(&["<a>"], "<a <b> <a", &[Ok("<a <b> <a")]);
        check(&["aab"], "aaab", &[Ok("a"), Err(0)]);
        check(&["<think>", "</think>"], "</th</think><think>", &[Ok("</th"), Err(1), Err(0)]);
        check(&["<｜x▁y｜>"], "<｜x▁<｜x▁y｜>ü", &[Ok("<｜x▁"), Err(0), Ok("ü")]);
    }
}

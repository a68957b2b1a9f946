use proptest::prelude::*;

use super::*;

fn run(tags: Tags, start: Start, text: &str) -> (String, String) {
    let mut split = Split::new(tags, start);
    let (mut content, mut reasoning) = (String::new(), String::new());
    for c in text.chars() {
        split.push(c, &mut content, &mut |text| reasoning.push_str(text));
    }
    split.finish(&mut content, &mut |text| reasoning.push_str(text));
    (reasoning, content)
}

#[track_caller]
fn check(start: Start, text: &str, reasoning: &str, content: &str) {
    assert_eq!(run(Tags::Think, start, text), (reasoning.to_owned(), content.to_owned()), "{text:?}");
}

#[test]
fn thinking_is_split_off_at_the_beginning_only() {
    use Start::{Inside, Outside};
    check(Outside, "<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes.");
    check(Outside, "\n <think>a b</think>c", "a b", "c");
    check(Inside, "Hm.</think>Yes.", "Hm.", "Yes.");
    check(Inside, "<think>\nHm.</think>Yes.", "Hm.", "Yes.");
    check(Outside, "<think></think>Yes.", "", "Yes.");
    // Malformed, or no thinking at all.
    check(Outside, "", "", "");
    check(Inside, "", "", "");
    check(Outside, "No thinking <think>here</think>.", "", "No thinking <think>here</think>.");
    check(Outside, "</think>x", "", "</think>x");
    check(Outside, "<thin", "", "<thin");
    check(Outside, "  <thing>", "", "  <thing>");
    check(Outside, "<think>never ends </thi", "never ends </thi", "");
    check(Inside, "a <think> b</think>c", "a <think> b", "c");
    check(Inside, "a</think></think>", "a", "</think>");
    check(Inside, "a < b </ think></think>c", "a < b </ think>", "c");
    check(Outside, "<think>a\n\n", "a", "");
}

#[test]
fn tags_of_other_families() {
    assert_eq!(run(Tags::Mistral, Start::Outside, "[THINK]a[/THINK]b"), ("a".into(), "b".into()));
    assert_eq!(run(Tags::Gemma, Start::Outside, "<|channel>thought\na<channel|>b"), ("a".into(), "b".into()));
    assert_eq!(run(Tags::Kimi, Start::Inside, "a◁/think▷b"), ("a".into(), "b".into()));
    assert_eq!(Tags::of_template("{{ '</think>' }}"), Some(Tags::Think));
    assert_eq!(Tags::of_template("{{ messages }} think"), None);
    assert_eq!(Tags::Think.start("<|im_start|>assistant\n<think>\n"), Start::Inside);
    assert_eq!(Tags::Think.start("assistant\n<think>\n\n</think>\n\n"), Start::Outside);
}

proptest! {
    #[test]
    fn nothing_but_tags_and_space_is_lost(text in "(<think>|</think>|[a-c]| |\n|<|/){0,20}") {
        let squeeze = |text: &str| text.replace([' ', '\n'], "");
        for start in [Start::Outside, Start::Inside] {
            let (reasoning, content) = run(Tags::Think, start, &text);
            let kept = squeeze(&reasoning) + &squeeze(&content);
            let without_tags = squeeze(&text).replace("<think>", "").replace("</think>", "");
            prop_assert_eq!(kept.replace("<think>", "").replace("</think>", ""), without_tags);
        }
    }
}

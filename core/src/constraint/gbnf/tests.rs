use super::to_lark;
use crate::constraint::tests::{accepts, compiler};
use crate::constraint::{ConstraintError, ConstraintSpec};

#[track_caller]
fn check(grammar: &str, good: &[&str], bad: &[&str]) {
    let spec = ConstraintSpec::Gbnf(grammar.to_owned());
    let constraint = compiler()
        .compile(spec)
        .unwrap_or_else(|error| panic!("{error}\n{}", to_lark(grammar).unwrap_or_default()));
    for text in good {
        assert!(accepts(&constraint, text), "{text:?} should be accepted\n{}", to_lark(grammar).unwrap());
    }
    for text in bad {
        assert!(!accepts(&constraint, text), "{text:?} should be refused\n{}", to_lark(grammar).unwrap());
    }
}

#[test]
fn characters_and_texts() {
    check(
        r#"root ::= "a\"b\\\n" [x-z0] [^a-c\]] . "#,
        &["a\"b\\\nxd!", "a\"b\\\n0\n\u{1F600}"],
        &["a\"b\\\nwd!", "a\"b\\\nxa!"],
    );
    check(r#"root ::= "\x41\u00e9\U0001F600" "/""#, &["A\u{e9}\u{1F600}/"], &["A", ""]);
    check(r#"root ::= [a-zA-Z_-]+ "#, &["a-_Z"], &["", "0"]);
    check("root ::= \"\" | \"x\"", &["", "x"], &["xx"]);
}

#[test]
fn repetitions() {
    check(
        r#"root ::= "a"{2,3} "b"? "c"* "d"{2} "e"{1,}"#,
        &["aadde", "aaabccddeee"],
        &["adde", "aaaadde", "aade", "aadd"],
    );
    check(r#"root ::= ("ab" | "c")+ "#, &["ab", "cab"], &["", "a"]);
    check(r#"root ::= ("a" "b"){,2}"#, &["", "abab"], &["ababab"]);
}

#[test]
fn several_rules_comments_and_lines() {
    check(
        "# a comment\nroot ::= (\n  word  # inside\n  | number\n) end\nword ::= [a-z]+\nnumber ::=\n  [0-9]+ |\n  \"-\"\nend ::= \"!\"\n",
        &["abc!", "12!", "-!"],
        &["abc", "a1!"],
    );
    check("root ::= a-b\na-b ::= \"x\"\r\n", &["x"], &[""]);
}

#[test]
fn recursion() {
    check(
        "root ::= expr\nexpr ::= term ([-+*/] term)*\nterm ::= num | \"(\" ws expr ws \")\"\nnum ::= [0-9]+ ws\nws ::= [ \\t\\n]*",
        &["1", "1+2", "(1 +( 2*3))/4", "12 +3"],
        &["", "+", "(1", "1++2", "a"],
    );
    check("root ::= \"(\" root \")\" | \"\"", &["", "()", "((()))"], &["(", "())"]);
}

/// As llama.cpp ships it.
const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;

#[test]
fn json() {
    let good =
        ["{}", r#"{"a": [1, -2.5e3, "x\n\u00e9", null], "b":{"c":true}}"#, "{\n  \"größe\": [\n    {} ] }"];
    check(JSON, &good, &["[]", "{", r#"{"a":}"#, r#"{"a":01}"#, r#"{"a"  :1}"#, "{\"a\":1}  "]);
}

#[track_caller]
fn check_refused(grammar: &str, words: &str) {
    match to_lark(grammar) {
        Err(ConstraintError::Invalid { message, .. }) => assert!(message.contains(words), "{message}"),
        other => panic!("{grammar:?} gave {other:?}"),
    }
}

#[test]
fn what_is_no_grammar() {
    check_refused("", "no rule `root`");
    check_refused("a ::= \"x\"", "no rule `root`");
    check_refused("root ::= a", "line 1: there is no rule `a`");
    check_refused("root ::= \"x\"\nroot ::= \"y\"", "line 2: rule `root` is there already");
    check_refused("root \"x\"", "`::=` should be here");
    check_refused("\n\n::= \"x\"", "line 3: a rule's name");
    check_refused("root ::= \"x", "not closed");
    check_refused("root ::= [a", "not closed");
    check_refused("root ::= []", "no characters");
    check_refused("root ::= [z-a]", "backwards");
    check_refused("root ::= (\"a\"", "`)` should be here");
    check_refused("root ::= \"a\")", "cannot be here");
    check_refused("root ::= \"a\"{", "`}` is missing");
    check_refused("root ::= \"a\"{x}", "a number");
    check_refused("root ::= \"a\"{3,2}", "less than the least");
    check_refused("root ::= \"a\"{99999}", "repetitions");
    check_refused("root ::= \"\\q\"", "no escape");
    check_refused("root ::= \"\\x4\"", "hexadecimal");
    check_refused("root ::= \"\\ud800\"", "hexadecimal");
    check_refused("root ::= \"\\", "too early");
    check_refused("root ::= <think>", "tokens");
    check_refused("root ::= *", "cannot be here");
    check_refused("root ::= \"a\" }", "cannot be here");
}

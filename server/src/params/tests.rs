use std::collections::HashSet;

use serde_json::{Value, json};

use super::*;
use crate::error::ErrorCode;

#[test]
fn a_name_stands_once_per_endpoint_and_schemas_are_json() {
    for endpoint in Endpoint::ALL {
        let mut seen = HashSet::new();
        for row in of(endpoint) {
            assert!(seen.insert(row.name), "`{}` twice at {}", row.name, endpoint.path());
            assert!(!row.about.is_empty() && !row.default.is_empty(), "{}", row.name);
            if let Kind::Other { schema, .. } = row.kind {
                assert!(
                    serde_json::from_str::<Value>(schema).is_ok_and(|schema| schema.is_object()),
                    "{}",
                    row.name
                );
            }
        }
    }
}

#[test]
fn what_has_an_effect_says_how_it_can_be_seen() {
    for row in all() {
        let seen = !matches!(row.probe, Probe::None);
        let wanted = matches!(row.rule, Rule::Honoured) && !row.is_required();
        assert_eq!(seen, wanted, "`{}`", row.name);
    }
}

#[track_caller]
fn check_one(name: &str, value: Value, expected: Option<ErrorCode>) {
    let body = json!({name: value});
    let error = check(Endpoint::Chat, body.as_object().expect("an object")).err();
    assert_eq!(error.as_ref().map(|error| error.code), expected, "{body} {error:?}");
    assert!(error.is_none_or(|error| error.message.contains(name)), "{body}");
}

#[test]
fn every_range_has_two_ends_and_one_type() {
    let (wrong_type, wrong_value) = (Some(ErrorCode::InvalidType), Some(ErrorCode::InvalidValue));
    for row in of(Endpoint::Chat).filter(|row| matches!(row.rule, Rule::Honoured)) {
        check_one(row.name, Value::Null, None);
        match row.kind {
            Kind::Bool => {
                check_one(row.name, json!(true), None);
                for odd in [json!(0), json!("true"), json!([]), json!({})] {
                    check_one(row.name, odd, wrong_type);
                }
            }
            Kind::Integer(low, high) => {
                for odd in
                    [json!("1"), json!(1.5), json!(1.0), json!(true), json!([1]), json!({}), json!(1e300)]
                {
                    check_one(row.name, odd, wrong_type);
                }
                for (inside, outside) in [(low, low - 1), (high, high + 1)] {
                    let text =
                        |number: i128| serde_json::from_str::<Value>(&number.to_string()).expect("JSON");
                    check_one(row.name, text(inside), None);
                    // Beyond 64 bits JSON's numbers are floats.
                    let small = i64::try_from(outside).is_ok() || u64::try_from(outside).is_ok();
                    check_one(row.name, text(outside), if small { wrong_value } else { wrong_type });
                }
            }
            Kind::Number(low, high) => {
                for odd in [json!("1"), json!(true), json!([1]), json!({})] {
                    check_one(row.name, odd, wrong_type);
                }
                check_one(row.name, json!(low), None);
                check_one(row.name, json!(low - 0.001), wrong_value);
                check_one(row.name, json!(1e39), wrong_value);
                if high < f64::MAX {
                    check_one(row.name, json!(high), None);
                    check_one(row.name, json!(high + 0.001), wrong_value);
                }
            }
            Kind::Positive => {
                check_one(row.name, json!(0.001), None);
                for odd in [json!(0), json!(-1), json!(1e39)] {
                    check_one(row.name, odd, wrong_value);
                }
            }
            Kind::Text => check_one(row.name, json!(1), wrong_type),
            Kind::Word(words) => {
                check_one(row.name, json!(words[0]), None);
                check_one(row.name, json!("no such word"), wrong_value);
                check_one(row.name, json!(1), wrong_type);
            }
            Kind::Texts(_) => {
                check_one(row.name, json!(["a"]), None);
                for odd in [json!(1), json!({}), json!(["a", 1]), json!([["a"]])] {
                    check_one(row.name, odd, wrong_type);
                }
            }
            Kind::Ids(_) => {
                check_one(row.name, json!([1]), None);
                for odd in [json!(1), json!("1"), json!(["1"]), json!([1.5]), json!([null])] {
                    check_one(row.name, odd, wrong_type);
                }
            }
            Kind::Object => {
                check_one(row.name, json!({}), None);
                for odd in [json!([]), json!(1), json!("{}")] {
                    check_one(row.name, odd, wrong_type);
                }
            }
            Kind::Other { .. } => {}
        }
    }
}

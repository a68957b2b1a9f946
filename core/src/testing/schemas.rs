//! JSON schemas of many shapes whose texts are bounded, for tests of constrained output.

use serde_json::{Map, Value, json};

/// `n` different schemas, the same ones every time. Whatever each accepts fits into a few hundred tokens, and a single
/// byte is a token here.
pub fn bounded_schemas(n: usize) -> Vec<Value> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    (0..n).map(|index| whole(&mut dice, index)).collect()
}

/// xorshift64*: any sequence does, as long as it is always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

const NAMES: [&str; 12] =
    ["name", "age", "größe", "is_open", "tags", "a b", "id", "\"quoted\"", "kind", "note", "x", "時間"];

fn whole(dice: &mut Dice, index: usize) -> Value {
    match index % 8 {
        // Arrays and scalars are JSON texts too.
        0 => array(dice, 1),
        1 => scalar(dice),
        2 => with_reference(dice),
        _ => object(dice, 2),
    }
}

fn any(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(8) {
        0 if depth > 0 => object(dice, depth - 1),
        1 if depth > 0 => array(dice, depth - 1),
        2 if depth > 0 => json!({"anyOf": [scalar(dice), object(dice, 0), {"type": "null"}]}),
        _ => scalar(dice),
    }
}

fn scalar(dice: &mut Dice) -> Value {
    match dice.below(16) {
        0 => json!({"type": "string", "maxLength": 1 + dice.below(12)}),
        1 => json!({"type": "string", "minLength": 2, "maxLength": 2 + dice.below(6)}),
        2 => json!({"type": "string", "enum": ["red", "green", "it's \"blue\"", "grün"]}),
        3 => json!({"type": "string", "pattern": "^[a-z]{2,5}-[0-9]{3}$"}),
        4 => json!({"type": "string", "format": "date"}),
        5 => json!({"type": "string", "format": "uuid"}),
        6 => json!({"type": "string", "format": "ipv4"}),
        7 => json!({"type": "integer", "minimum": -20, "maximum": 20 + dice.below(5000)}),
        8 => json!({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 100}),
        9 => json!({"type": "integer", "minimum": 0, "maximum": 1000, "multipleOf": 5}),
        10 => json!({"type": "boolean"}),
        11 => json!({"type": ["boolean", "null"]}),
        12 => json!({"const": {"fixed": [1, "two", null]}}),
        13 => json!({"enum": [1, "one", null, true, [2]]}),
        14 => json!({"type": "string", "pattern": "^(?:yes|no|maybe)$"}),
        _ => json!({"type": "null"}),
    }
}

fn array(dice: &mut Dice, depth: usize) -> Value {
    let least = dice.below(3);
    let most = least + dice.below(3);
    match dice.below(4) {
        0 => json!({
            "type": "array", "prefixItems": [scalar(dice), any(dice, depth)], "items": false, "minItems": 2
        }),
        _ => json!({"type": "array", "items": any(dice, depth), "minItems": least, "maxItems": most}),
    }
}

fn object(dice: &mut Dice, depth: usize) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    let first = dice.below(NAMES.len());
    for place in 0..1 + dice.below(4) {
        let name = NAMES[(first + place * 5) % NAMES.len()];
        properties.insert(name.to_owned(), any(dice, depth));
        if dice.below(3) > 0 {
            required.push(name);
        }
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn with_reference(dice: &mut Dice) -> Value {
    json!({
        "type": "object",
        "properties": {"one": {"$ref": "#/$defs/part"}, "two": {"$ref": "#/$defs/part"}},
        "required": ["one"],
        "additionalProperties": false,
        "$defs": {"part": any(dice, 1)}
    })
}

//! The schemas in docs/schemas are those of the types. `DUET_UPDATE_SCHEMAS=1` writes them.

use std::path::Path;

use duet_bench::schema;

#[track_caller]
fn check(name: &str, schema: &schemars::Schema) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas").join(name);
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("DUET_UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{} is not the types' schema; DUET_UPDATE_SCHEMAS=1 writes it", path.display());
}

#[test]
fn docs_have_the_types_schemas() {
    check("bench-report.json", &schema::report());
    check("decisions.json", &schema::decisions());
}

#[test]
fn every_field_is_described() {
    for schema in [schema::report(), schema::decisions()] {
        described(schema.as_value(), "");
    }
}

/// Each property of each object has a sentence of its own, or refers to a type that has one.
fn described(value: &serde_json::Value, path: &str) {
    if let Some(properties) = value.get("properties").and_then(|found| found.as_object()) {
        for (name, property) in properties {
            let is_tag = property.get("const").is_some();
            assert!(is_tag || property.get("description").is_some(), "{path}/{name} is not described");
        }
    }
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| described(field, &format!("{path}/{name}")));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| described(item, path)),
        _ => {}
    }
}

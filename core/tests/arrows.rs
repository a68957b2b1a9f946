//! The arrows between crates, as the bans in deny.toml state them: who may depend on whom.
//!
//! cargo-deny reads the same rules, but is not installed everywhere; this needs nothing but cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

type Names = BTreeSet<String>;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core lies in the workspace").to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Crate → the crates that depend on it directly, for any purpose but a foreign crate's own tests. On this platform only:
/// crates for others need not be on this machine.
fn dependents() -> BTreeMap<String, Names> {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--all-features",
        "--filter-platform",
        host,
    ]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("a resolved graph");
    let name = |id: &Value| {
        let packages = metadata["packages"].as_array().expect("packages");
        let package = packages.iter().find(|package| package["id"] == *id).expect("a package for every id");
        package["name"].as_str().expect("a name").to_owned()
    };
    let mut dependents = BTreeMap::<String, Names>::new();
    for node in nodes {
        let from = name(&node["id"]);
        dependents.entry(from.clone()).or_default();
        for dependency in node["deps"].as_array().expect("dependencies") {
            let to = name(&dependency["pkg"]);
            // A crate may be its own dev-dependency, with other features.
            if to != from {
                dependents.entry(to).or_default().insert(from.clone());
            }
        }
    }
    dependents
}

/// Crate → the crates that may depend on it directly; none for those that are banned outright.
fn rules() -> BTreeMap<String, Names> {
    let text = std::fs::read_to_string(workspace().join("deny.toml")).expect("deny.toml");
    let rules: toml::Table = text.parse().expect("TOML");
    let wrappers = |rule: &toml::Value| -> Option<Names> {
        rule.get("wrappers")?.as_array()?.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let rules = rules["bans"]["deny"].as_array().expect("a list of bans");
    rules
        .iter()
        .map(|rule| (rule["crate"].as_str().expect("a crate").to_owned(), wrappers(rule).unwrap_or_default()))
        .collect()
}

#[test]
fn every_crate_keeps_to_the_arrows() {
    let dependents = dependents();
    for (name, allowed) in rules() {
        let Some(found) = dependents.get(&name) else { continue };
        assert!(!allowed.is_empty(), "{name} is banned, and {found:?} depend on it");
        let stray: Vec<_> = found.difference(&allowed).collect();
        assert!(stray.is_empty(), "{stray:?} depend on {name}; deny.toml allows that to {allowed:?} only");
    }
}

#[test]
fn the_arrows_are_about_crates_that_exist() {
    let dependents = dependents();
    for (name, allowed) in rules() {
        // An outright ban names what is absent; every other name must be spelt as the crate is.
        let named = allowed.iter().chain((!allowed.is_empty()).then_some(&name));
        for name in named {
            assert!(dependents.contains_key(name), "deny.toml names {name}, which is no dependency");
        }
    }
}

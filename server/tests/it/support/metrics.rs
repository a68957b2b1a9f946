//! A strict reader of Prometheus' text format.

use std::collections::{BTreeMap, HashSet};

use super::Running;

/// What `/metrics` said: `name{a="b",c="d"}` → value.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) series: BTreeMap<String, f64>,
    pub(crate) kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// Asks for it and checks its form: every series has a family with a type and a help text before it, none comes twice,
    /// histograms rise to their count.
    pub(crate) async fn of(server: &Running) -> Self {
        let answer = server.get("/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4");
        Self::read(answer.text())
    }

    fn read(text: &str) -> Self {
        let (mut series, mut kinds, mut helped) = (BTreeMap::new(), BTreeMap::new(), HashSet::new());
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty() && helped.insert(name), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(helped.contains(name), "no help for {name}");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {name}");
                family = name;
            } else {
                let (key, value) = line.rsplit_once(' ').expect("a value");
                let name = key.split('{').next().expect("a name");
                let stem = match kinds[family].as_str() {
                    "histogram" => {
                        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end))
                    }
                    _ => Some(name),
                };
                assert_eq!(stem, Some(family), "outside of its family: {line}");
                let value: f64 = value.parse().expect("a number");
                assert!(value >= 0.0 && value.is_finite(), "{line}");
                assert!(series.insert(key.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        assert!(text.ends_with('\n'));
        let scrape = Self { series, kinds };
        scrape.check_histograms(text);
        scrape
    }

    fn check_histograms(&self, text: &str) {
        let mut before: Option<(String, f64)> = None;
        for line in text.lines().filter(|line| line.contains("_bucket{")) {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().expect("a number");
            let bound = key.find("le=\"").expect("a bound");
            let (labels, bound) = (&key[..bound], key[bound + 4..].trim_end_matches("\"}"));
            if let Some((other, less)) = &before
                && other == labels
            {
                assert!(value >= *less, "{line}");
            }
            if bound == "+Inf" {
                let count = labels.trim_end_matches(',').replacen("_bucket{", "_count{", 1);
                let count =
                    if count.ends_with('{') { count.trim_end_matches('{').to_owned() } else { count + "}" };
                assert_eq!(self.series.get(&count), Some(&value), "{line}");
            }
            before = Some((labels.to_owned(), value));
        }
    }

    /// A series' value.
    #[track_caller]
    pub(crate) fn value(&self, key: &str) -> f64 {
        *self.series.get(key).unwrap_or_else(|| panic!("no {key} in {:#?}", self.series.keys()))
    }

    /// The value of a series of model `m` on the fake engine.
    #[track_caller]
    pub(crate) fn of_m(&self, name: &str) -> f64 {
        self.value(&format!("{name}{{engine=\"fake\",model_name=\"m\"}}"))
    }
}

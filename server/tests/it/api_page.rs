//! `docs/API.md` is written from the table of parameters; this keeps it true.

const HEAD: &str = "\
# Parameters

Written from `server/src/params` by `DUET_UPDATE=1 cargo test -p duet-server api_page`; a test fails where this page says
something else. [serving.md](serving.md) has settings, routes and errors, `GET /openapi.json` the same for programs.

`null` is the default of every parameter. What is out of range or of another type is a 400 with the parameter's path; nothing
is clamped. Fields that are not listed are accepted, and named in the header `x-duet-ignored`
(`unknown_fields = \"deny\"`: a 400).
";

#[test]
fn the_api_page_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/API.md");
    let page = format!("{HEAD}{}", duet_server::params::markdown());
    if std::env::var_os("DUET_UPDATE").is_some() {
        std::fs::write(path, &page).expect("docs/ can be written");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "docs/API.md is stale: DUET_UPDATE=1 cargo test -p duet-server api_page");
}

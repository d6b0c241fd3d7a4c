//! How settings are loaded: sources, their order, and what is said of what is wrong.

#![expect(clippy::expect_used, reason = "a test stops where something is not as it needs it")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sidelog_chassis::settings::{
    self, ByteSize, Environment, Misfit, Program, Validate, Variable, address, as_text, duration, load,
};

const PROGRAM: Program = Program {
    name: "sidelog-test",
    variables: &[
        Variable {
            name: "NAME",
            key: "service.name",
            convert: as_text,
        },
        Variable {
            name: "OTHER_NAME",
            key: "service.name",
            convert: as_text,
        },
        Variable {
            name: "PORT",
            key: "places.0.address",
            convert: port,
        },
    ],
};

fn port(text: &str) -> Result<Option<toml::Value>, String> {
    match text.parse::<u16>() {
        Ok(0) => Ok(None),
        Ok(port) => Ok(Some(toml::Value::String(format!("0.0.0.0:{port}")))),
        Err(_) => Err("not a port".to_owned()),
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    service: Service,
    sizes: Sizes,
    places: Vec<Place>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Service {
    name: String,
    enabled: bool,
    count: u16,
    share: f64,
    file: Option<PathBuf>,
    tags: Vec<String>,
    numbers: Vec<u32>,
    kind: Kind,
    #[serde(with = "duration")]
    wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Cat,
    Dog,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sizes {
    low: ByteSize,
    high: ByteSize,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    #[serde(with = "address")]
    address: SocketAddr,
    #[serde(default)]
    note: String,
}

impl Validate for Settings {
    fn validate(&self) -> Vec<Misfit> {
        let fits = self.sizes.low <= self.sizes.high;
        let misfit = || Misfit::new(["sizes.low", "sizes.high"], "more than sizes.high");
        if fits { Vec::new() } else { vec![misfit()] }
    }
}

fn env(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn loaded(config: Option<&Path>, variables: &[(&str, &str)]) -> Result<Settings, String> {
    load(&PROGRAM, config, &env(variables)).map_err(|error| error.to_string())
}

fn from_toml(text: &str) -> Result<Settings, String> {
    loaded(None, &[("SIDELOG_CONFIG_TOML", text)])
}

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(content: impl AsRef<[u8]>) -> File {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("test.toml");
    fs::write(&path, content).expect("a file");
    File { _folder: folder, path }
}

#[test]
fn later_sources_win() {
    let toml = ("SIDELOG_CONFIG_TOML", "[service]\nname = 'file'");
    let name = |variables: &[(&str, &str)]| loaded(None, variables).expect("good settings").service.name;
    assert_eq!(name(&[]), "");
    assert_eq!(name(&[toml]), "file");
    assert_eq!(name(&[toml, ("NAME", "named")]), "named");
    assert_eq!(name(&[toml, ("NAME", "named"), ("OTHER_NAME", "later")]), "later");
    assert_eq!(
        name(&[toml, ("OTHER_NAME", "later"), ("SIDELOG_SERVICE__NAME", "section")]),
        "section"
    );
}

#[test]
fn the_flag_wins_over_the_variable_that_names_a_file() {
    let (flag, variable) = (file("[service]\nname = 'flag'"), file("[service]\nname = 'variable'"));
    let variables = [("SIDELOG_CONFIG", variable.path.to_str().expect("UTF-8"))];
    assert_eq!(
        loaded(None, &variables).expect("good settings").service.name,
        "variable"
    );
    assert_eq!(
        loaded(Some(&flag.path), &variables)
            .expect("good settings")
            .service
            .name,
        "flag"
    );
}

#[test]
fn a_file_and_a_text_at_once_are_refused_in_one_sentence() {
    let file = file("");
    let text = ("SIDELOG_CONFIG_TOML", "[service]");
    let error = loaded(Some(&file.path), &[text]).expect_err("two configurations");
    assert!(
        error.starts_with("SIDELOG_CONFIG_TOML: --config names the file"),
        "{error}"
    );
    let path = file.path.to_str().expect("UTF-8");
    let error = loaded(None, &[text, ("SIDELOG_CONFIG", path)]).expect_err("two configurations");
    assert!(
        error.starts_with("SIDELOG_CONFIG_TOML: SIDELOG_CONFIG names the file"),
        "{error}"
    );
    loaded(Some(&file.path), &[("SIDELOG_CONFIG_TOML", "")]).expect("an empty variable is unset");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let (latin, cut) = (file(b"[service]\nname = '\xe4'"), file("[service]\nname = "));
    for (path, part) in [
        (
            folder.path().join("missing.toml").as_path(),
            "missing.toml: no such file; check --config",
        ),
        (folder.path(), "a directory; name the TOML file in it by --config"),
        (&latin.path, "test.toml: line 2 is not UTF-8"),
        (&cut.path, "test.toml:2: not TOML: "),
        (Path::new("/dev/zero"), "/dev/zero: larger than 4MiB"),
    ] {
        let error = loaded(Some(path), &[]).expect_err(part);
        assert!(error.contains(part), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_each_with_its_line() {
    let file = file(
        "servicex = 1\n[service]\nnamex = 'x'\nenabled = 'yes'\ncount = 70000\n[[places]]\naddress = 5\n[[places]]\nnote = 'x'\n[[places]]\naddress = '1'\n",
    );
    let variables = [
        ("PORT", "x"),
        ("SIDELOG_SIZES__LOW", "1 apple"),
        ("SIDELOG_SERVICE__", "x"),
    ];
    let error = loaded(Some(&file.path), &variables).expect_err("many problems");
    let path = file.path.display();
    for line in [
        "PORT: not a port".to_owned(),
        "SIDELOG_SERVICE__: not SIDELOG_<SECTION>__<KEY>; correct the name, or unset it".to_owned(),
        format!("{path}:1: servicex: unknown key, did you mean \"service\"?"),
        format!("{path}:3: service.namex: unknown key, did you mean \"name\"?"),
        format!("{path}:4: service.enabled: expected true or false, not \"yes\""),
        format!("{path}:5: service.count: expected a whole number from 0 to 65535, not 70000"),
        format!("{path}:7: places.0.address: expected an address to listen at, such as \"0.0.0.0:8080\", not 5"),
        format!("{path}:8: places.1: the key \"address\" is missing"),
    ] {
        assert!(error.lines().any(|told| told == line), "{line}\nis not in\n{error}");
    }
    assert!(
        error.contains(&format!("{path}:11: places.2.address: \"1\" is not an address")),
        "{error}"
    );
    assert!(
        error.contains("SIDELOG_SIZES__LOW: sizes.low: \"1 apple\" is not a size"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 10, "{error}");
}

#[test]
fn a_variable_becomes_what_its_key_wants() {
    let settings = loaded(
        None,
        &[
            ("SIDELOG_SERVICE__NAME", "5"),
            ("SIDELOG_SERVICE__ENABLED", "true"),
            ("SIDELOG_SERVICE__COUNT", " 7 "),
            ("SIDELOG_SERVICE__SHARE", "1"),
            ("SIDELOG_SERVICE__FILE", "/a,b"),
            ("SIDELOG_SERVICE__TAGS", "a, b,,c "),
            ("SIDELOG_SERVICE__NUMBERS", "[1, 2]"),
            ("SIDELOG_SERVICE__KIND", "dog"),
            ("SIDELOG_SERVICE__WAIT", "1m"),
            ("SIDELOG_SIZES__HIGH", "1024"),
            ("SIDELOG_PLACES__0__ADDRESS", "[::1]:1"),
            ("SIDELOG_PLACES__1", "{ address = \"1.2.3.4:5\", note = \"x\" }"),
            ("SIDELOG_LABELS__A", "1"),
        ],
    )
    .expect("good variables");
    let service = Service {
        name: "5".to_owned(),
        enabled: true,
        count: 7,
        share: 1.0,
        file: Some(PathBuf::from("/a,b")),
        tags: ["a", "b", "c"].map(str::to_owned).to_vec(),
        numbers: vec![1, 2],
        kind: Kind::Dog,
        wait: Duration::from_secs(60),
    };
    assert_eq!(settings.service, service);
    assert_eq!(settings.sizes.high, ByteSize::kib(1));
    assert_eq!(settings.places[0].address, "[::1]:1".parse().expect("an address"));
    assert_eq!(settings.places[1].note, "x");
    assert_eq!(settings.labels.get("a").map(String::as_str), Some("1"));
}

#[test]
fn a_variable_that_its_key_does_not_want_is_named() {
    for (name, value, part) in [
        (
            "SIDELOG_SERVICE__ENABLED",
            "1",
            "service.enabled: expected true or false, not \"1\"",
        ),
        (
            "SIDELOG_SERVICE__COUNT",
            "-1",
            "service.count: expected a whole number from 0 to 65535, not \"-1\"",
        ),
        (
            "SIDELOG_SERVICE__COUNT",
            "70000",
            "service.count: expected a whole number from 0 to 65535, not 70000",
        ),
        (
            "SIDELOG_SERVICE__SHARE",
            "half",
            "service.share: expected a number, such as 0.5, not \"half\"",
        ),
        (
            "SIDELOG_SERVICE__NUMBERS",
            "1,x",
            "service.numbers: expected a whole number, such as 4, not \"x\"",
        ),
        ("SIDELOG_SERVICE__NUMBERS", "[1,", "service.numbers: expected a list"),
        (
            "SIDELOG_SERVICE__KIND",
            "Dog",
            "service.kind: expected \"cat\" or \"dog\", not \"Dog\"",
        ),
        ("SIDELOG_SERVICE", "x", ""),
        ("SIDELOG_SERVICE__NAME__X", "x", "service.name: "),
        (
            "SIDELOG_PLACES__0",
            "x",
            "places.0: expected a table with keys, not \"x\"",
        ),
        (
            "SIDELOG_PLACES__1__NOTE",
            "x",
            "places.1.note: the elements of places are numbered from 0",
        ),
        (
            "SIDELOG_BOGUS__KEY",
            "x",
            "bogus: unknown key; the keys here are service, sizes, places, labels",
        ),
    ] {
        let outcome = loaded(None, &[(name, value)]);
        if part.is_empty() {
            outcome.expect("a variable without __ is nobody's");
            continue;
        }
        let error = outcome.expect_err(name);
        assert!(error.starts_with(&format!("{name}: {part}")), "{error}\nis not\n{part}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_variable_can_change_one_key_of_the_files_second_table() {
    let toml = (
        "SIDELOG_CONFIG_TOML",
        "[[places]]\naddress = '1.1.1.1:1'\n[[places]]\naddress = '1.1.1.1:2'\nnote = 'kept'",
    );
    let settings = loaded(None, &[toml, ("SIDELOG_PLACES__1__ADDRESS", "1.1.1.1:3")]).expect("good settings");
    assert_eq!(settings.places.len(), 2);
    assert_eq!(settings.places[1].address, "1.1.1.1:3".parse().expect("an address"));
    assert_eq!(settings.places[1].note, "kept");
}

#[test]
fn a_misfit_names_where_each_of_its_keys_was_set() {
    for (variables, expected) in [
        (
            &[("SIDELOG_CONFIG_TOML", "[sizes]\nhigh = 1\nlow = 2")][..],
            "SIDELOG_CONFIG_TOML:3: sizes.low: more than sizes.high (sizes.high: SIDELOG_CONFIG_TOML:2)",
        ),
        (
            &[
                ("SIDELOG_CONFIG_TOML", "[sizes]\nhigh = 1"),
                ("SIDELOG_SIZES__LOW", "2"),
            ],
            "SIDELOG_SIZES__LOW: sizes.low: more than sizes.high (sizes.high: SIDELOG_CONFIG_TOML:2)",
        ),
        (
            &[("SIDELOG_SIZES__LOW", "2")],
            "SIDELOG_SIZES__LOW: sizes.low: more than sizes.high (sizes.high: by default)",
        ),
    ] {
        assert_eq!(loaded(None, variables), Err(expected.to_owned()));
    }
}

#[test]
fn lines_are_counted_in_every_way_to_write_toml() {
    for (toml, part) in [
        (
            "service = { name = 'a', namex = 'b' }",
            ":1: service.namex: unknown key",
        ),
        ("service.namex = 'b'", ":1: service.namex: unknown key"),
        (
            "\n\n[service]\r\ntags = [\r\n  'a',\r\n  5,\r\n]",
            ":6: service.tags.1: expected a string",
        ),
        (
            "[service]\nname = \"\"\"\na\nb\"\"\"\ncount = 'x'",
            ":5: service.count: expected a whole number",
        ),
        ("[service]\nname = 'a'\nname = 'b'", ":3: not TOML: duplicate key"),
        (
            "[service]\nwait = 1979-05-27",
            ":2: service.wait: \"1979-05-27\" is not a duration",
        ),
        (
            "[service]\nfile = ['a']",
            ":2: service.file: expected path string, not a list",
        ),
    ] {
        let error = from_toml(toml).expect_err(toml);
        assert!(error.contains(part), "{toml:?}\n  says {error}");
    }
}

#[test]
fn what_is_checked_is_named() {
    let file = file("");
    let place = |config, variables: &[(&str, &str)]| settings::place(config, &env(variables)).expect("a place");
    assert_eq!(place(None, &[]), None);
    assert_eq!(
        place(None, &[("SIDELOG_CONFIG_TOML", "a = 1")]).as_deref(),
        Some("SIDELOG_CONFIG_TOML")
    );
    assert_eq!(place(Some(&file.path), &[]), Some(file.path.display().to_string()));
}

#[test]
fn a_variable_that_says_nothing_of_its_key_leaves_it_as_it_was() {
    let file = file("[[places]]\naddress = '127.0.0.1:1'\n");
    let settings = loaded(Some(&file.path), &[("PORT", "0")]).expect("good settings");
    assert_eq!(settings.places[0].address.to_string(), "127.0.0.1:1");
}

//! Redaction as the record sees it: every kind of place, whole, cut and broken.

use super::*;
use crate::generation::Generation;
use crate::settings::Settings;
use proptest::prelude::*;

/// What is done with the default rules and some of the configuration.
fn with<T>(json: &[&str], then: impl FnOnce(Applied<'_>) -> T) -> T {
    let redaction = Redaction {
        headers: vec!["X-Internal".to_owned()],
        json: json.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..Redaction::default()
    };
    let settings = Settings {
        redaction,
        ..Settings::default()
    };
    let generation = Generation::new(1, settings);
    then(Redactor::default().under(generation.policy(None)))
}

fn body(kind: Kind, text: &str, cut: bool) -> String {
    with(&[], |applied| applied.body(kind, text, cut).text.into_owned())
}

fn json(text: &str) -> String {
    body(Kind::Json, text, false)
}

/// The first `end` bytes.
fn front(text: &str, end: usize) -> &str {
    text.get(..end).unwrap()
}

fn header(name: &str, value: &str) -> String {
    with(&[], |applied| applied.header(name, value.as_bytes()).into_owned())
}

fn query(text: &str) -> String {
    with(&[], |applied| applied.query(text.as_bytes()).into_owned())
}

fn text(text: &str) -> String {
    body(Kind::Text, text, false)
}

#[test]
fn the_values_of_secret_fields_are_gone() {
    for (name, value, expected) in [
        ("authorization", "Bearer abc", "Bearer REDACTED"),
        (
            "authorization",
            "Digest username=\"a\", response=\"b\"",
            "Digest REDACTED",
        ),
        ("authorization", "abcdef", "REDACTED"),
        ("proxy-authorization", "Basic YTpi", "Basic REDACTED"),
        ("cookie", "a=1; b=2=3;c", "a=REDACTED; b=REDACTED; REDACTED"),
        (
            "set-cookie",
            "sid=abc; Path=/; HttpOnly; Max-Age=3; x=y",
            "sid=REDACTED; Path=/; HttpOnly; Max-Age=3; REDACTED",
        ),
        ("x-api-key", "abc", "REDACTED"),
        ("x-internal", "abc", "REDACTED"),
        ("x-api-key", "EIGHTLET", "REDACTED"),
        ("accept", "text/html", "text/html"),
        (
            "x-note",
            "see https://u:p@a.test/?token=abc",
            "see https://REDACTED@a.test/?token=REDACTED",
        ),
    ] {
        assert_eq!(header(name, value), expected, "{name}: {value}");
    }
}

#[test]
fn fields_with_urls_lose_their_secrets() {
    for (value, expected) in [
        ("/next?sig=abc&page=2", "/next?sig=REDACTED&page=2"),
        ("/next?token=a,b'c)d&x=1", "/next?token=REDACTED&x=1"),
        ("https://me:pw@a.test/a?b=c", "https://REDACTED@a.test/a?b=c"),
        ("https://me:pw@a.test", "https://REDACTED@a.test"),
        ("https://a.test/@me", "https://a.test/@me"),
        (
            "https://a.test/#access_token=abc&x=1",
            "https://a.test/#access_token=REDACTED&x=1",
        ),
        (
            "<https://a.test/?code_verifier=abc>; rel=next",
            "<https://a.test/?code_verifier=REDACTED>; rel=next",
        ),
    ] {
        assert_eq!(header("location", value), expected, "{value}");
    }
}

#[test]
fn query_parameters_are_judged_by_name() {
    for (text, expected) in [
        ("page=2&token=abc&x=1", "page=2&token=REDACTED&x=1"),
        ("a=1;api_key=abc", "a=1;api_key=REDACTED"),
        ("%74oken=abc", "%74oken=REDACTED"),
        ("to%6ben=abc", "to%6ben=REDACTED"),
        ("token", "token"),
        ("token=a=b&", "token=REDACTED&"),
        (
            "X-Amz-Signature=abc&X-Amz-Date=1",
            "X-Amz-Signature=REDACTED&X-Amz-Date=1",
        ),
        ("user[password]=abc", "user[password]=REDACTED"),
        ("next_page_token=abc", "next_page_token=abc"),
        ("", ""),
    ] {
        assert_eq!(query(text), expected, "{text}");
    }
}

#[test]
fn a_value_goes_to_the_next_ampersand() {
    assert_eq!(query("password=a;b=c&d=1"), "password=REDACTED&d=1");
}

#[test]
fn values_are_searched_decoded() {
    assert_eq!(
        query("next=https%3A%2F%2Fa.test%2F%3Ftoken%3Dabc"),
        "next=https%3A%2F%2Fa.test%2F%3Ftoken%3DREDACTED"
    );
    assert_eq!(query("number=4111+1111+1111+1111&a=b"), "number=REDACTED&a=b");
    let payload = body(Kind::Form, "payload=%7B%22password%22%3A%22abc%22%7D", false);
    assert_eq!(payload, "payload=%7B%22password%22%3A%22REDACTED%22%7D");
}

#[test]
fn paths_lose_parameters_and_tokens() {
    let path = |text: &str| with(&[], |applied| applied.path(text.as_bytes()).into_owned());
    assert_eq!(path("/a;jsessionid=abc;v=1/b"), "/a;jsessionid=REDACTED;v=1/b");
    assert_eq!(path("/reset/eyJhbGciOiJub25lIn0.e30.x/b"), "/reset/REDACTED/b");
    assert_eq!(path("/cards/4111111111111111"), "/cards/REDACTED");
    assert_eq!(path("/a/%65yJhbGciOiJub25lIn0.e30.x"), "/a/REDACTED");
    assert_eq!(path("/api/v1/users/7"), "/api/v1/users/7");
}

#[test]
fn json_keys_are_known_in_any_shape() {
    for (text, expected) in [
        (r#"{"password":"abc","a":1}"#, r#"{"password":"REDACTED","a":1}"#),
        (r#"{ "Password" : "a\"bc" }"#, r#"{ "Password" : "REDACTED" }"#),
        (r#"{"pass\u0077ord":"abc"}"#, r#"{"pass\u0077ord":"REDACTED"}"#),
        (
            r#"{"a":{"token":123,"b":true}}"#,
            r#"{"a":{"token":"REDACTED","b":true}}"#,
        ),
        (
            r#"{"token":"a","token":"b"}"#,
            r#"{"token":"REDACTED","token":"REDACTED"}"#,
        ),
        (r#"{"secret":null,"pin":""}"#, r#"{"secret":null,"pin":""}"#),
        (
            r#"{"card":{"brand":"visa","n":[1,{"x":"y"}],"z":null},"b":1}"#,
            r#"{"card":{"brand":"REDACTED","n":["REDACTED",{"x":"REDACTED"}],"z":null},"b":1}"#,
        ),
        (
            r#"[{"otp":"1"},{"otp":"2"}]"#,
            r#"[{"otp":"REDACTED"},{"otp":"REDACTED"}]"#,
        ),
        (
            "{\"jwt\":\"a\"}\n{\"jwt\":\"b\"}\n",
            "{\"jwt\":\"REDACTED\"}\n{\"jwt\":\"REDACTED\"}\n",
        ),
        (r#"{"next_page_token":"abc"}"#, r#"{"next_page_token":"abc"}"#),
        (r#"{password:'abc',a:1}"#, r#"{password:"REDACTED",a:1}"#),
        (r#"{"a":4111111111111111}"#, r#"{"a":"REDACTED"}"#),
        (r#"{"a":"no. 4111 1111 1111 1111"}"#, r#"{"a":"no. REDACTED"}"#),
        (
            r#"{"a":"https:\/\/u:p@a.test\/"}"#,
            r#"{"a":"https://REDACTED@a.test/"}"#,
        ),
        (
            r#"{"e":"login with password=abc failed"}"#,
            r#"{"e":"login with password=REDACTED failed"}"#,
        ),
        (r#""eyJhbGciOiJub25lIn0.e30.x""#, r#""REDACTED""#),
        ("", ""),
        ("OK", "OK"),
    ] {
        assert_eq!(json(text), expected, "{text}");
    }
}

#[test]
fn strings_that_hold_json_are_read() {
    assert_eq!(
        json(r#"{"body":"{\"password\":\"abc\",\"a\":1}"}"#),
        r#"{"body":"{\"password\":\"REDACTED\",\"a\":1}"}"#
    );
    let mut nested = r#"{"password":"MARK"}"#.to_owned();
    for _ in 0..7 {
        nested = serde_json::json!({ "body": nested }).to_string();
        let redacted = json(&nested);
        assert!(!redacted.contains("MARK"), "{redacted}");
        serde_json::from_str::<serde_json::Value>(&redacted).unwrap();
    }
    assert!(!json(r#"{"log":"sent {\"password\": \"MARK\"} to a"}"#).contains("MARK"));
}

#[test]
fn json_paths_and_names_of_the_configuration_are_kept() {
    let rules = ["$.user.cards[*].number", "$[*].id", "internal_id"];
    let clean = |text: &str| {
        with(&rules, |applied| {
            applied.body(Kind::Json, text, false).text.into_owned()
        })
    };
    assert_eq!(
        clean(r#"{"user":{"cards_x":[{"number":1}],"cards":[{"number":1,"n":2},{"number":[3]}]},"number":4}"#),
        r#"{"user":{"cards_x":[{"number":1}],"cards":[{"number":"REDACTED","n":2},{"number":["REDACTED"]}]},"number":4}"#
    );
    assert_eq!(
        clean(r#"[{"id":1,"x":{"id":2}},{"ID":3}]"#),
        r#"[{"id":"REDACTED","x":{"id":2}},{"ID":"REDACTED"}]"#
    );
    assert_eq!(
        clean(r#"{"x":[1],"internalId":7,"user":{"cards":{"number":1}}}"#),
        r#"{"x":[1],"internalId":"REDACTED","user":{"cards":{"number":1}}}"#
    );
}

#[test]
fn what_cannot_be_placed_is_left_out() {
    for (text, kept) in [
        (r#"{"a":"b, "password":"MARK"}"#, r#"{"a":"b, ""#),
        (r#"{"a":1 "password":"MARK"}"#, r#"{"a":1 "#),
        (r#"{"a":1}} {"password":"MARK"}"#, r#"{"a":1}"#),
        (r#"["a":"MARK"]"#, r#"["a""#),
        ("password: MARK", "password"),
    ] {
        let clean = with(&[], |applied| {
            let clean = applied.body(Kind::Json, text, false);
            (clean.text.into_owned(), clean.ends_early)
        });
        assert_eq!(clean, (kept.to_owned(), true), "{text}");
    }
}

#[test]
fn a_body_cut_anywhere_shows_no_secret() {
    let whole = r#"{"a":"b","password":"MARKMARK","c":{"token":"MARKMARK"},"d":"password=MARKMARK","e":"{\"pin\":\"MARKMARK\"}"}"#;
    for end in 0..whole.len() {
        let cut = body(Kind::Json, front(whole, end), true);
        assert!(!cut.contains("MARK"), "{cut}");
    }
}

#[test]
fn a_cut_secret_is_taken_out() {
    for (whole, least) in [
        ("a eyJhbGciOiJub25lIn0.e30.x", 10),
        ("see https://user:passw0rd@a.test", 18),
        ("n 4111111111111111", 10),
        ("k AKIAIOSFODNN7EXAMPLE", 11),
        ("password=MARK", 11),
    ] {
        for end in least..whole.len() {
            let cut = body(Kind::Text, front(whole, end), true);
            assert!(cut.contains(REDACTED), "{} became {cut}", front(whole, end));
        }
    }
}

#[test]
fn text_loses_what_has_a_shape() {
    for (before, after) in [
        ("a eyJhbGciOiJub25lIn0.e30.x b", "a REDACTED b"),
        ("Authorization: Bearer abc\nHost: a", "Authorization: REDACTED\nHost: a"),
        ("got bearer abcdef123.", "got bearer REDACTED"),
        ("got bEaReR abcdef123", "got bEaReR REDACTED"),
        ("BASIC dXNlcjpwdw== was sent", "BASIC REDACTED was sent"),
        ("it suits a wearer anywhere", "it suits a wearer anywhere"),
        (
            "x -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\ny",
            "x REDACTED\ny",
        ),
        ("-----BEGIN CERTIFICATE-----\nMIIE", "-----BEGIN CERTIFICATE-----\nMIIE"),
        ("AKIAIOSFODNN7EXAMPLE", "REDACTED"),
        ("ghp_0123456789abcdefghijklmnopqrstuvwxyz", "REDACTED"),
        ("postgres://u:p@db/x", "postgres://REDACTED@db/x"),
        ("a=1 password=abc, b", "a=1 password=REDACTED, b"),
        ("pwd: 'a b' x", "pwd: 'REDACTED' x"),
        (r#"sent {"token": "a b"}"#, r#"sent {"token": "REDACTED"}"#),
        ("{'secret': 'abc'}", "{'secret': \"REDACTED\"}"),
        ("the task-force-of-2024-was-here", "the task-force-of-2024-was-here"),
        ("time: 12:30", "time: 12:30"),
    ] {
        assert_eq!(text(before), after, "{before}");
    }
}

#[test]
fn markup_is_judged_by_elements_and_attributes() {
    for (text, expected) in [
        (
            "<a><password>abc</password><b>c</b></a>",
            "<a><password>REDACTED</password><b>c</b></a>",
        ),
        (
            "<w:Password Type='x'> abc </w:Password>",
            "<w:Password Type='x'> REDACTED </w:Password>",
        ),
        ("<u token=\"abc\" id='7'/>", "<u token=\"REDACTED\" id='7'/>"),
        (
            "<card><n>1</n><card>2</card><m x='3'/></card><n>1</n>",
            "<card><n>REDACTED</n><card>REDACTED</card><m x='REDACTED'/></card><n>1</n>",
        ),
        (
            "<secret><![CDATA[a<b]]></secret>",
            "<secret><![CDATA[REDACTED]]></secret>",
        ),
        (
            "<x><![CDATA[{\"pin\":1}]]></x>",
            "<x><![CDATA[{\"pin\":\"REDACTED\"}]]></x>",
        ),
        ("<!-- <pin>1</pin> --><a>b</a>", "<!-- <pin>REDACTED</pin> --><a>b</a>"),
        (
            "<b>&lt;pin&gt;1&lt;/pin&gt;</b>",
            "<b>&lt;pin&gt;REDACTED&lt;/pin&gt;</b>",
        ),
        (
            "<add key=\"ApiKey\" value=\"abc\"/>",
            "<add key=\"ApiKey\" value=\"REDACTED\"/>",
        ),
        ("<p name='token'>abc</p>", "<p name='token'>REDACTED</p>"),
        (
            "<?xml version=\"1.0\"?>\n<!DOCTYPE a>\n<a xmlns:auth=\"u:x\">4111111111111111</a>",
            "<?xml version=\"1.0\"?>\n<!DOCTYPE a>\n<a xmlns:auth=\"u:x\">REDACTED</a>",
        ),
        ("<pin>1", "<pin>REDACTED"),
        ("<a pin=\"1", "<a pin=\"REDACTED"),
        ("<a></a>", "<a></a>"),
    ] {
        assert_eq!(body(Kind::Xml, text, false), expected, "{text}");
    }
}

#[test]
fn forms_in_html_lose_their_values() {
    for (text, expected) in [
        (
            "<input name=password value=abc><p>b</p>",
            "<input name=password value=REDACTED><p>b</p>",
        ),
        (
            "<meta name=\"csrf-token\" content=\"abc\"><p>a < b</p>",
            "<meta name=\"csrf-token\" content=\"REDACTED\"><p>a < b</p>",
        ),
        (
            "<script>let a = {\"token\": \"a<b\"};</script>",
            "<script>let a = {\"token\": \"REDACTED\"};</script>",
        ),
    ] {
        assert_eq!(body(Kind::Html, text, false), expected, "{text}");
    }
}

#[test]
fn markup_that_cannot_be_placed_is_left_out() {
    for (text, kept) in [("<a>1 < <pin>2</pin></a>", "<a>1 "), ("<a =\"x\"><pin>2</pin>", "<a ")] {
        let clean = with(&[], |applied| applied.body(Kind::Xml, text, false).text.into_owned());
        assert_eq!(clean, kept, "{text}");
    }
}

#[test]
fn multipart_fields_are_judged_by_name_and_type() {
    let sent = "--x\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nAda\r\n--x\r\ncontent-disposition: form-data; \
                name=\"password\"\r\n\r\nab\r\nc\r\n--x\r\nContent-Disposition: form-data; name=j\r\nContent-Type: \
                application/json\r\n\r\n{\"pin\":1}\r\n--x--\r\n";
    let clean = |bytes: &[u8], boundary: &str, cut| {
        with(&[], |applied| {
            let clean = applied.multipart(bytes, boundary.as_bytes(), cut);
            clean.map(|clean| clean.text.into_owned())
        })
    };
    let expected = sent
        .replace("ab\r\nc", "REDACTED")
        .replace("{\"pin\":1}", "{\"pin\":\"REDACTED\"}");
    assert_eq!(clean(sent.as_bytes(), "x", false), Some(expected));
    assert_eq!(clean(sent.as_bytes(), "y", false), None);
    let marked = sent.replace("ab\r\nc", "MARK\r\nMARK");
    for end in 3..marked.len() {
        let cut = clean(front(&marked, end).as_bytes(), "x", true).unwrap();
        assert!(!cut.contains("MARK"), "{cut}");
    }
    let file = b"--x\r\ncontent-disposition: form-data; name=f; filename=a\r\n\r\n\xff\xfe\x00\r\n--x--";
    assert!(clean(file, "x", false).unwrap().contains("\r\n\r\n[3 bytes]\r\n--x--"));
}

#[test]
fn lines_and_events_are_judged_one_by_one() {
    let lines = "{\"pin\":1}\n{\"a\" 1}\n{\"pin\":2}\n";
    let clean = with(&[], |applied| {
        let clean = applied.body(Kind::Lines, lines, false);
        (clean.text.into_owned(), clean.ends_early)
    });
    assert_eq!(
        clean,
        ("{\"pin\":\"REDACTED\"}\n{\n{\"pin\":\"REDACTED\"}\n".to_owned(), true)
    );
    let events = "event: a\ndata: {\"pin\":1}\n\ndata: token=abc\n\n";
    let expected = "event: a\ndata: {\"pin\":\"REDACTED\"}\n\ndata: token=REDACTED\n\n";
    assert_eq!(body(Kind::Events, events, false), expected);
}

#[test]
fn switched_off_nothing_is_taken_out() {
    let mut settings = Settings::default();
    settings.redaction.enabled = false;
    let generation = Generation::new(1, settings);
    let redactor = Redactor::default();
    let applied = redactor.under(generation.policy(None));
    assert_eq!(applied.header("authorization", b"Bearer abc"), "Bearer abc");
    assert_eq!(
        applied.body(Kind::Json, r#"{"password":"a"#, true).text,
        r#"{"password":"a"#
    );
}

#[test]
fn a_configured_name_may_have_few_letters_or_none() {
    let clean = |text: &str| {
        with(&["id", "4711", "é1"], |applied| {
            applied.body(Kind::Text, text, false).text.into_owned()
        })
    };
    assert_eq!(
        clean("id=a %69d=a i%64: a 4711=a %34711: a é1=a 4712=a e1=a i=a"),
        "id=REDACTED %69d=REDACTED i%64: REDACTED 4711=REDACTED %34711: REDACTED é1=REDACTED 4712=a e1=a i=a"
    );
}

proptest! {
    #[test]
    fn a_body_that_comes_again_is_redacted_and_counted_as_the_first_time(
        asked in proptest::collection::vec((0..2_usize, 0..3_usize, any::<bool>(), 0..4_usize, any::<bool>()), 1..60),
    ) {
        const TEXTS: [&str; 4] = [
            r#"{"token":"value","note":"Bearer abcdefghijklmnop","id":1}"#,
            r#"{"id":1}"#,
            r#"{"id":1,"password":"val"#,
            r#"{"id":1 "password":"value"}"#,
        ];
        let mut settings = Settings::default();
        settings.redaction.json = vec!["id".parse().unwrap()];
        let generations = [Generation::new(1, Settings::default()), Generation::new(2, settings)];
        let outcome = |redactor: &Redactor, asked: &(usize, usize, bool, usize, bool)| {
            let (generation, kind, cut, text, with_header) = *asked;
            let applied = redactor.under(generations[generation].policy(None));
            if with_header {
                applied.header("authorization", b"Bearer abc");
            }
            let kind = [Kind::Json, Kind::Lines, Kind::Text][kind];
            (applied.body(kind, TEXTS[text], cut), redactor.take_tally())
        };
        let redactor = Redactor::default();
        for asked in &asked {
            prop_assert_eq!(outcome(&redactor, asked), outcome(&Redactor::default(), asked));
        }
    }
}

#[test]
fn a_body_that_comes_again_is_noted_again() {
    let generation = Generation::new(1, Settings::default());
    let redactor = Redactor::default().with_notes();
    let findings = [(); 4].map(|()| {
        redactor
            .under(generation.policy(None))
            .body(Kind::Json, r#"{"token":"value"}"#, false);
        redactor.findings().len()
    });
    assert_eq!(findings, [1, 2, 3, 4]);
}

#[test]
fn what_is_remembered_is_forgotten_with_its_rules() {
    let mut settings = Settings::default();
    settings.redaction.headers = vec!["x-a".to_owned()];
    settings.redaction.json = vec!["id".parse().unwrap()];
    let (old, new) = (Generation::new(1, Settings::default()), Generation::new(2, settings));
    let redactor = Redactor::default();
    for _ in 0..3 {
        for (generation, of_a) in [(&old, "value"), (&new, REDACTED)] {
            let applied = redactor.under(generation.policy(None));
            for _ in 0..3 {
                assert_eq!(applied.header("x-b", b"value"), "value");
                assert_eq!(applied.text(b"value"), "value");
                assert_eq!(applied.header("x-a", b"value"), of_a);
                assert_eq!(applied.header("x-token", b"value"), REDACTED);
                let clean_by_old = format!(r#"{{"id":"{of_a}"}}"#);
                assert_eq!(applied.body(Kind::Json, r#"{"id":"value"}"#, false).text, clean_by_old);
                let body = format!(r#"{{"id":"{of_a}","other":"value","token":"{REDACTED}"}}"#);
                let sent = body.replace(REDACTED, "value");
                assert_eq!(applied.body(Kind::Json, &sent, false).text, body);
                let text = format!("id={of_a} other=value");
                assert_eq!(
                    applied.body(Kind::Text, &text.replace(REDACTED, "value"), false).text,
                    text
                );
            }
        }
    }
}

/// Any JSON; values under the keys `token` and `pin` are marked.
fn any_json(marked: bool) -> BoxedStrategy<serde_json::Value> {
    use serde_json::Value;
    let text = if marked {
        "MARK[a-z\"\\\\é]{0,4}"
    } else {
        "[a-z\"\\\\/{}é 0-9]{0,12}"
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let key = "[a-z\"\\\\é]{1,6}";
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..4).prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
    .boxed()
}

fn open() -> impl Strategy<Value = serde_json::Value> {
    any_json(false).prop_filter("names no secret", names_no_secret)
}

fn names_no_secret(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(members) => members
            .iter()
            .all(|(key, value)| names::secret(key.as_bytes()).is_none() && names_no_secret(value)),
        serde_json::Value::Array(elements) => elements.iter().all(names_no_secret),
        _ => true,
    }
}

proptest! {
    #[test]
    fn valid_json_stays_valid_and_no_marked_value_survives(
        open in any_json(false), marked in any_json(true), name in "token|PIN|apiKey|user_password", cut in any::<proptest::sample::Index>(),
    ) {
        let whole = serde_json::json!({ "a": [open, { name.as_str(): marked }], "b": 1 }).to_string();
        let clean = json(&whole);
        prop_assert!(!clean.contains("MARK"), "{}", clean);
        serde_json::from_str::<serde_json::Value>(&clean).unwrap();
        let mut end = cut.index(whole.len());
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        prop_assert!(!body(Kind::Json, front(&whole, end), true).contains("MARK"));
    }

    /// A configured path has the walk look at each member.
    #[test]
    fn plain_members_are_walked_as_others_are(
        soup in r#"("(a|token|b\\"c)"|"a" ?: ?|"password":|[{}\[\]",:'\\ \n\x1e0-9a-z.]){0,60}"#, open in any_json(false), marked in any_json(true), cut: bool,
    ) {
        let value = serde_json::json!({ "open": open, "n": 12, "items": [{ "a": true, "password": marked }], "last": null });
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        for text in [&soup, &pretty, &format!("{{{soup}"), &format!("{pretty}{soup}"), &value.to_string()] {
            let redacted = |rules| with(rules, |applied| applied.body(Kind::Json, text, cut));
            let (plain, each) = (redacted(&[]), redacted(&["$.never.there"]));
            prop_assert_eq!(plain, each);
        }
    }

    #[test]
    fn what_no_rule_names_is_untouched(value in open()) {
        let text = value.to_string();
        prop_assert_eq!(json(&text), text);
    }

    #[test]
    fn any_text_is_taken_as_any_kind(text in "(\\PC|[{}\\[\\]\":,'\\\\=&;<>]){0,80}", cut in any::<bool>()) {
        for kind in [Kind::Json, Kind::Lines, Kind::Form, Kind::Xml, Kind::Html, Kind::Events, Kind::Text] {
            body(kind, &text, cut);
        }
    }

    #[test]
    fn no_marked_value_of_a_secret_name_survives(before in "[a-z=&]{0,20}", after in "[a-z=&]{0,20}") {
        let all = format!("{before}&password=MARK&{after}");
        prop_assert!(!query(&all).contains("MARK"));
    }
}

#[test]
fn no_byte_between_values_stops_the_walk() {
    let redactor = Redactor::default();
    let generation = Generation::new(1, Settings::default());
    let rules = redactor.under(generation.policy(None));
    for byte in '\0'..='\u{7f}' {
        for text in [
            format!("1,{byte}"),
            format!("[{byte}2]"),
            format!("{{\"a\":{byte}3}}"),
            format!("{{{byte}"),
        ] {
            for kind in [Kind::Json, Kind::Lines, Kind::Events, Kind::Text] {
                // It comes back at all.
                rules.body(kind, &text, true);
            }
        }
    }
}

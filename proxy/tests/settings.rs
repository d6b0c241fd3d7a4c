//! The proxy's settings: the documented file, the variables, and what is refused with what words.

#![expect(clippy::expect_used, reason = "a test stops where something is not as it needs it")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sidelog_chassis::nats::StorageType;
use sidelog_chassis::settings::{ByteSize, Environment, load};
use sidelog_proxy::settings::{
    DEFAULTS, Direction, OtlpProtocol, PROGRAM, Settings, SpoolMode, TraceMode, UpstreamProtocol,
};

fn env(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn from_env(variables: &[(&str, &str)]) -> Result<Settings, String> {
    load(&PROGRAM, None, &env(variables)).map_err(|error| error.to_string())
}

fn from_toml(text: &str) -> Result<Settings, String> {
    from_env(&[("SIDELOG_CONFIG_TOML", text)])
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn nothing_set_is_the_defaults() {
    assert_eq!(from_env(&[]), Ok(Settings::default()));
}

#[test]
fn the_documented_file_is_the_defaults() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/proxy.toml");
    let settings: Settings = load(&PROGRAM, Some(&file), &Environment::new()).expect("config/proxy.toml is good");
    assert_eq!(settings, Settings::default());
}

#[test]
fn what_the_documented_file_comments_out_can_be_written() {
    // One way to say who we are at a time.
    let clashing = ["# creds_file", "# nkey_file", "# token_file"];
    let is_short = |line: &str| line.starts_with("# ca = ");
    let uncommented: Vec<_> = DEFAULTS
        .lines()
        .filter(|line| !is_short(line) && !clashing.iter().any(|key| line.starts_with(key)))
        .map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line))
        .collect();
    // Certificates are of use where there is TLS.
    let settings = from_env(&[
        ("SIDELOG_CONFIG_TOML", &uncommented.join("\n")),
        ("SIDELOG_TRACES__ENDPOINT", "https://localhost"),
    ])
    .expect("every commented key is a key");
    assert_eq!(settings.service.version.as_deref(), Some("1.4.2"));
    assert_eq!(settings.service.instance_id.as_deref(), Some("api-7d9f-1"));
    assert_eq!(settings.routes.len(), 1);
    assert_eq!(settings.routes[0].methods, ["GET"]);
    assert_eq!(settings.routes[0].host.as_deref(), Some("api.example.com"));
    assert_eq!(settings.routes[0].capture.response_body, Some(false));
    assert_eq!(
        settings.listeners[0]
            .upstream
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
        Some("http://127.0.0.1:9000")
    );
    assert!(settings.listeners[0].tls.is_on() && settings.listeners[0].tls.client_ca_file.is_some());
    assert!(settings.listeners[0].upstream_tls.ca_file.is_some());
    assert_eq!(
        settings.routes[0].upstream_tls.server_name.as_deref(),
        Some("api.internal")
    );
    assert_eq!(settings.spool.folder(), Path::new("/var/lib/sidelog"));
    assert_eq!(settings.nats.user.as_deref(), Some("sidelog"));
    assert!(settings.nats.tls.ca_file.is_some() && settings.nats.tls.cert_file.is_some());
    assert!(settings.traces.tls.ca_file.is_some() && settings.traces.headers_file.is_some());
    assert_eq!(settings.traces.protocol, Some(OtlpProtocol::Grpc));
    assert_eq!(settings.traces.resource["cloud.region"], "eu-central-1");
    for key in clashing {
        let line = DEFAULTS.lines().find(|line| line.starts_with(key)).expect(key);
        from_toml(&format!("[nats]\n{}", line.trim_start_matches("# "))).expect(key);
    }
}

/// Whether a comment's text is a key or a table rather than prose.
fn is_toml(text: &str) -> bool {
    text.starts_with("[[") || text.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
}

#[test]
fn the_variables_of_earlier_deployments_are_read() {
    let settings = from_env(&[
        ("SERVICE_NAME", "api-service"),
        ("ENVIRONMENT", "production"),
        ("PORT", "8081"),
        ("UPSTREAM_URL", "http://127.0.0.1:3000"),
        ("NATS_URL", "nats://a:4222,nats://b:4222"),
        ("NATS_STREAM", "records"),
        ("NATS_SUBJECT", "records.>"),
        ("NATS_STORAGE_TYPE", "memory"),
        ("NATS_MAX_AGE", "2d12h"),
        ("JAEGER_URL", "jaeger:4317"),
    ])
    .expect("good variables");
    assert_eq!(
        (settings.service.name.as_str(), settings.service.environment.as_str()),
        ("api-service", "production")
    );
    assert_eq!(settings.listeners.len(), 1);
    assert_eq!(settings.listeners[0].address, address("0.0.0.0:8081"));
    assert_eq!(
        settings.listeners[0]
            .upstream
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
        Some("http://127.0.0.1:3000")
    );
    assert_eq!(settings.nats.url.to_string(), "nats://a:4222,nats://b:4222");
    assert_eq!(
        (settings.nats.stream.as_str(), settings.nats.subject.as_str()),
        ("records", "records.>")
    );
    assert_eq!(settings.nats.storage, StorageType::Memory);
    assert_eq!(settings.nats.max_age, Duration::from_secs(60 * 3600));
    assert_eq!(settings.traces.endpoint.to_string(), "jaeger:4317");
}

#[test]
fn otel_variables_win_over_the_named_ones_and_sections_win_over_both() {
    let otel = [
        ("SERVICE_NAME", "one"),
        ("OTEL_SERVICE_NAME", "two"),
        ("JAEGER_URL", "a:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:3"),
    ];
    let settings = from_env(&otel).expect("good variables");
    assert_eq!(settings.service.name, "two");
    assert_eq!(settings.traces.endpoint.to_string(), "http://c:3/");
    let mut all = otel.to_vec();
    all.extend([("SIDELOG_SERVICE__NAME", "three"), ("SIDELOG_TRACES__ENDPOINT", "d:4")]);
    let settings = from_env(&all).expect("good variables");
    assert_eq!(settings.service.name, "three");
    assert_eq!(settings.traces.endpoint.to_string(), "d:4");
}

#[test]
fn port_and_upstream_url_speak_of_the_first_listener() {
    let toml = "[[listeners]]\naddress = '127.0.0.1:1'\ntrace = 'restart'\n[[listeners]]\naddress = '127.0.0.1:2'\n";
    let variables = [
        ("SIDELOG_CONFIG_TOML", toml),
        ("PORT", "0"),
        ("UPSTREAM_URL", "http://a:3"),
    ];
    let settings = from_env(&variables).expect("good settings");
    assert_eq!(settings.listeners[0].address, address("0.0.0.0:0"));
    assert_eq!(settings.listeners[0].trace, TraceMode::Restart);
    assert_eq!(
        settings.listeners[0]
            .upstream
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
        Some("http://a:3")
    );
    assert_eq!(settings.listeners[1].address, address("127.0.0.1:2"));
    assert_eq!(settings.listeners[1].upstream, None);
}

#[test]
fn every_kind_of_key_can_be_set_by_a_variable() {
    let settings = from_env(&[
        ("SIDELOG_LISTENERS__0__ADDRESS", "127.0.0.1:1"),
        ("SIDELOG_LISTENERS__1__ADDRESS", "[::1]:2"),
        ("SIDELOG_LISTENERS__1__DIRECTION", "outbound"),
        ("SIDELOG_LISTENERS__1__UPSTREAM_PROTOCOL", "h2"),
        ("SIDELOG_ROUTES__0__PATH", "/a/*"),
        ("SIDELOG_ROUTES__0__METHODS", "get,POST"),
        ("SIDELOG_ROUTES__0__CAPTURE__BODY_MAX", "1KiB"),
        ("SIDELOG_CAPTURE__ENABLED", "false"),
        ("SIDELOG_CAPTURE__BODY_MAX", "32KiB"),
        ("SIDELOG_CAPTURE__CONTENT_TYPES", "application/json, text/*"),
        ("SIDELOG_CAPTURE__MEMORY_MAX", "8388608"),
        ("SIDELOG_REDACTION__HEADERS", "[\"X-Token\", \"x-other\"]"),
        ("SIDELOG_FRAME__MAX_RECORDS", "1"),
        ("SIDELOG_FRAME__LINGER", "0"),
        ("SIDELOG_TRACES__SAMPLE", "0.25"),
        ("SIDELOG_SPOOL__MODE", "always"),
        ("SIDELOG_NATS__TLS__CA_FILE", "/ca.pem"),
        ("SIDELOG_NATS__TLS__REQUIRED", "true"),
        ("SIDELOG_RUNTIME__THREADS", "4"),
    ])
    .expect("good variables");
    assert_eq!(settings.listeners[1].address, address("[::1]:2"));
    assert_eq!(settings.listeners[1].direction, Direction::Outbound);
    assert_eq!(settings.listeners[1].upstream_protocol, UpstreamProtocol::H2);
    assert_eq!(settings.routes[0].methods, ["GET", "POST"]);
    assert_eq!(settings.routes[0].capture.body_max, Some(ByteSize::kib(1)));
    assert!(!settings.capture.enabled);
    assert_eq!(settings.capture.body_max, ByteSize::kib(32));
    assert_eq!(settings.capture.content_types, ["application/json", "text/*"]);
    assert_eq!(settings.capture.memory_max, ByteSize::mib(8));
    assert_eq!(settings.redaction.headers, ["x-token", "x-other"]);
    assert_eq!((settings.frame.max_records, settings.frame.linger), (1, Duration::ZERO));
    assert!((settings.traces.sample - 0.25).abs() < f64::EPSILON);
    assert_eq!(settings.spool.mode, SpoolMode::Always);
    assert!(settings.nats.tls.required && settings.nats.tls.ca_file.is_some());
    assert_eq!(settings.runtime.threads, 4);
}

#[test]
fn the_example_of_the_design_is_good() {
    let settings = from_toml(
        r#"
        [service]
        name = "api-service"
        environment = "production"
        [[listeners]]
        address = "0.0.0.0:8080"
        upstream = "http://127.0.0.1:9000"
        tls.ca = "/ca.pem"
        direction = "inbound"
        trace = "continue"
        [[routes]]
        path = "/api/v1/users/{id}"
        methods = ["GET"]
        upstream = "http://127.0.0.1:9001"
        capture.response_body = false
        [[routes]]
        path = "/internal/*"
        capture.enabled = false
        [redaction]
        headers = ["x-internal-token"]
        "#,
    )
    .expect("good settings");
    assert!(!settings.capture.with(&settings.routes[1].capture).enabled);
    assert!(settings.capture.with(&settings.routes[0].capture).enabled);
}

/// A file, and what is said of it.
const WRONG: &[(&str, &str)] = &[
    (
        "[capture]\nbod_max = 1",
        ":2: capture.bod_max: unknown key, did you mean \"body_max\"?",
    ),
    (
        "[captur]\nbody_max = 1",
        ":1: captur: unknown key, did you mean \"capture\"?",
    ),
    (
        "[capture]\nenabled = \"yes\"",
        ":2: capture.enabled: expected true or false, not \"yes\"",
    ),
    (
        "[capture]\nbody_max = \"64 apples\"",
        ":2: capture.body_max: \"64 apples\" is not a size",
    ),
    (
        "[capture]\nbody_max = true",
        ":2: capture.body_max: expected a size, such as \"64KiB\", not true",
    ),
    (
        "[capture]\ncontent_types = [\n  \"json\",\n]",
        ":3: capture.content_types.0: \"json\" is not a content type",
    ),
    (
        "[frame]\nlinger = \"200\"",
        ":2: frame.linger: \"200\" has no unit; write \"200s\"",
    ),
    (
        "[frame]\nlinger = 200",
        ":2: frame.linger: expected a duration with a unit, such as \"200ms\"",
    ),
    (
        "[frame]\nmax_records = 0",
        ":2: frame.max_records: 0 is too few; write 1 or more",
    ),
    (
        "[frame]\nmax_records = -1",
        ":2: frame.max_records: expected a whole number, such as 4, not -1",
    ),
    (
        "[limits]\nheader_timeout = \"0s\"",
        ":2: limits.header_timeout: 0 is no time at all",
    ),
    (
        "[[listeners]]\naddress = \"8080\"",
        ":2: listeners.0.address: \"8080\" is not an address to listen at",
    ),
    (
        "[[listeners]]\ntrace = \"continues\"",
        ":2: listeners.0.trace: expected \"continue\" or \"restart\" or \"ignore\", not \"continues\"",
    ),
    (
        "[[listeners]]\nupstream = \"localhost:1\"",
        ":2: listeners.0.upstream: \"localhost:1\" has no scheme; write \"http://localhost:1\"",
    ),
    (
        "[[listeners]]\nupstream = \"unix:a.sock\"",
        ":2: listeners.0.upstream: \"a.sock\" is not the path of a socket; write it from the root",
    ),
    (
        "[[listeners]]\ntls.cert_file = \"a\"",
        ":2: listeners.0.tls.cert_file: needs listeners.0.tls.key_file beside it; set both or neither",
    ),
    (
        "[[listeners]]\ntls.client_ca_file = \"a\"",
        ":2: listeners.0.tls.client_ca_file: is of no use without TLS; set listeners.0.tls.cert_file",
    ),
    (
        "[[listeners]]\ntls.client_auth = \"optional\"",
        ":2: listeners.0.tls.client_auth: is of no use without listeners.0.tls.client_ca_file",
    ),
    (
        "[[listeners]]\ntls.ca = \"a\"\nupstream_tls.ca_file = \"a\"",
        "both say who signs the upstream's certificate; keep one of them",
    ),
    (
        "[[listeners]]\nupstream_tls.key_file = \"a\"",
        ":2: listeners.0.upstream_tls.key_file: needs listeners.0.upstream_tls.cert_file beside it",
    ),
    (
        "[[listeners]]\nupstream_tls.server_name = \"\"",
        ":2: listeners.0.upstream_tls.server_name: \"\" is not a server's name; write the name or IP address",
    ),
    (
        "[[routes]]\npath = \"/\"\nupstream_tls.ca_file = \"a\"",
        "routes.0.upstream_tls: is of no use: routes.0.upstream is not https://",
    ),
    (
        "listeners = 5",
        ":1: listeners: expected a list, such as [\"a\", \"b\"], not 5",
    ),
    ("capture = 5", ":1: capture: expected a table with keys, not 5"),
    (
        "[[routes]]\nmethods = [\"GET\"]",
        ":1: routes.0: the key \"path\" is missing",
    ),
    (
        "[[routes]]\npath = \"users\"",
        ":2: routes.0.path: \"users\" is not a path: begin it with /",
    ),
    (
        "[[routes]]\npath = \"/\"\nmethods = [\"G T\"]",
        ":3: routes.0.methods.0: \"G T\" is not a method",
    ),
    (
        "[[routes]]\npath = \"/\"\nhost = \"a:80\"",
        ":3: routes.0.host: \"a:80\" is not a host",
    ),
    (
        "[[routes]]\npath = \"/\"\ncapture.memory_max = 1",
        ":3: routes.0.capture.memory_max: unknown key",
    ),
    (
        "[redaction]\nheaders = [\"x token\"]",
        ":2: redaction.headers.0: \"x token\" is not a header field's name",
    ),
    ("[traces]\nsample = 1.5", ":2: traces.sample: 1.5 is not a share"),
    ("[traces]\nsample = nan", ":2: traces.sample: NaN is not a share"),
    (
        "[traces]\nendpoint = \"grpc://a\"",
        ":2: traces.endpoint: \"grpc://a\" is not a collector's address",
    ),
    (
        "[traces]\nprotocol = \"http/json\"",
        ":2: traces.protocol: expected \"grpc\" or \"http/protobuf\", not \"http/json\"",
    ),
    (
        "[traces]\nheaders = \"api-key\"",
        ":2: traces.headers: header field 1 has no =; write \"name=value\"",
    ),
    ("[traces]\nbatch_max = 0", ":2: traces.batch_max: 0 is too few"),
    (
        "[runtime]\nthreads = 0",
        ":2: runtime.threads: 0 is out of range; write 1 to 256",
    ),
    (
        "[nats]\nurl = \"http://a\"",
        ":2: nats.url: \"http://a\" is not a NATS server's address",
    ),
    (
        "[nats]\nsubject = \"a..b\"",
        ":2: nats.subject: \"a..b\" is not a subject (an empty token)",
    ),
    ("[service]\nname = \" \"", ":2: service.name: \" \" is not a name"),
    (
        "[service]\nname = 5",
        ":2: service.name: expected a string, such as \"text\", not 5",
    ),
    ("[service\nname = 5", ":1: not TOML:"),
    ("[log]\nlevel = \"verbose\"", ":2: log.level: expected \"error\" or"),
];

#[test]
fn what_is_wrong_is_told_with_its_line_its_key_and_what_to_write() {
    for (toml, part) in WRONG {
        let error = from_toml(toml).expect_err(toml);
        assert!(error.contains(part), "{toml:?}\n  says {error}\n  not  {part}");
        assert!(error.starts_with("SIDELOG_CONFIG_TOML:"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// A file, what is said of it, and where the other key was set.
const MISFITS: &[(&str, &str, &str)] = &[
    (
        "[queue]\nmax_bytes = \"1MiB\"\nbodies_max_bytes = \"2MiB\"",
        ":3: queue.bodies_max_bytes: queue.bodies_max_bytes (2MiB) is more than queue.max_bytes (1MiB)",
        "(queue.max_bytes: SIDELOG_CONFIG_TOML:2)",
    ),
    (
        "[queue]\nbodies_max_bytes = \"64MiB\"",
        ":2: queue.bodies_max_bytes: queue.bodies_max_bytes (64MiB) is more than queue.max_bytes (32MiB)",
        "(queue.max_bytes: by default)",
    ),
    (
        "[queue]\nmax_bytes = \"100KiB\"\nbodies_max_bytes = 0",
        ":2: queue.max_bytes: two bodies of capture.body_max (64KiB) are more than queue.max_bytes (100KiB); lower",
        "(capture.body_max: by default)",
    ),
    (
        "[frame]\nmax_bytes = \"2MiB\"",
        ":2: frame.max_bytes: 2MiB is out of range; write 1KiB to 1020KiB",
        "",
    ),
    (
        "[spool]\nmax_bytes = \"512KiB\"",
        ":2: spool.max_bytes: spool.max_bytes (512KiB) is less than four times frame.max_bytes (256KiB); raise the first",
        "(frame.max_bytes: by default)",
    ),
    (
        "[capture]\nbody_max = \"1MiB\"",
        ":2: capture.body_max: 1MiB is more than a record holds",
        "",
    ),
    (
        "[[routes]]\npath = \"/\"\n[routes.capture]\nbody_max = \"1MiB\"",
        ":4: routes.0.capture.body_max: 1MiB is more than a record holds",
        "",
    ),
    ("listeners = []", ":1: listeners: no listener", ""),
    (
        "[[listeners]]\naddress = \"127.0.0.1:1\"\n[[listeners]]\naddress = \"0.0.0.0:1\"",
        ":4: listeners.1.address: listeners.1.address (0.0.0.0:1) and listeners.0.address (127.0.0.1:1) are in each other's way; give each a port of its own",
        "(listeners.0.address: SIDELOG_CONFIG_TOML:2)",
    ),
    (
        "[[listeners]]\naddress = \"0.0.0.0:9901\"",
        ":2: listeners.0.address: admin.address (0.0.0.0:9901) and listeners.0.address (0.0.0.0:9901) are in each other's way",
        "(admin.address: by default)",
    ),
    (
        "[[listeners]]\nupstream = \"http://localhost:8080\"",
        ":2: listeners.0.upstream: listeners.0.upstream (http://localhost:8080) leads back to this proxy's own listeners.0.address",
        "(listeners.0.address: by default)",
    ),
    (
        "[[routes]]\npath = \"/a/{x}\"\n[[routes]]\npath = \"/a/{y}/\"",
        ":3: routes.1: \"/a/{y}/\" is there twice",
        "(routes.0: SIDELOG_CONFIG_TOML:1)",
    ),
    (
        "[nats]\nuser = \"a\"",
        ":2: nats.user: needs nats.password_file beside it",
        "",
    ),
    (
        "[nats.tls]\ncert_file = \"a\"",
        ":2: nats.tls.cert_file: needs nats.tls.key_file beside it",
        "",
    ),
    (
        "[nats]\ncreds_file = \"a\"\ntoken_file = \"b\"",
        ":2: nats.creds_file: nats.creds_file and nats.token_file each say who we are",
        "(nats.token_file: SIDELOG_CONFIG_TOML:3)",
    ),
    (
        "[traces]\nendpoint = \"http://a:1/v1/traces\"",
        ":2: traces.endpoint: \"/v1/traces\" in traces.endpoint is a path, and gRPC has none; leave it out, or write traces.protocol",
        "(traces.protocol: by default)",
    ),
    (
        "[traces]\nbatch_max = 9000",
        ":2: traces.batch_max: traces.batch_max (9000) is more than traces.queue_max (8192)",
        "(traces.queue_max: by default)",
    ),
    (
        "[traces]\nheaders = \"a=1\"\nheaders_file = \"a\"",
        ":3: traces.headers_file: traces.headers and traces.headers_file both say which header fields go along",
        "(traces.headers: SIDELOG_CONFIG_TOML:2)",
    ),
    (
        "[traces.tls]\nca_file = \"a\"",
        ":2: traces.tls.ca_file: is of no use: http://localhost:4317 is not TLS; write https://",
        "(traces.endpoint: by default)",
    ),
    (
        "[traces]\nendpoint = \"https://a\"\n[traces.tls]\ncert_file = \"a\"",
        ":4: traces.tls.cert_file: needs traces.tls.key_file beside it",
        "",
    ),
];

#[test]
fn what_does_not_fit_together_names_both_keys_and_their_places() {
    for (toml, part, place) in MISFITS {
        let error = from_toml(toml).expect_err(toml);
        assert!(
            error.contains(part) && error.contains(place),
            "{toml:?}\n  says {error}\n  not  {part} … {place}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_bad_variable_is_named() {
    for (name, value, expected) in [
        (
            "PORT",
            "80a",
            "PORT: \"80a\" is not a port; write a number from 0 to 65535, such as 8080",
        ),
        (
            "UPSTREAM_URL",
            "localhost:9000",
            "UPSTREAM_URL: listeners.0.upstream: \"localhost:9000\" has no scheme; write \"http://localhost:9000\"",
        ),
        (
            "NATS_URL",
            "http://u:p@a",
            "NATS_URL: nats.url: \"http://***@a\" is not a NATS server's address",
        ),
        (
            "NATS_MAX_AGE",
            "a week",
            "NATS_MAX_AGE: nats.max_age: \"a week\" is not a duration",
        ),
        (
            "NATS_STORAGE_TYPE",
            "disk",
            "NATS_STORAGE_TYPE: nats.storage: expected \"file\" or \"memory\", not \"disk\"",
        ),
        (
            "JAEGER_URL",
            "a:b",
            "JAEGER_URL: traces.endpoint: \"a:b\" is not a collector's address",
        ),
        ("SIDELOG_BOGUS__KEY", "1", "SIDELOG_BOGUS__KEY: bogus: unknown key"),
        (
            "SIDELOG_CAPTURE__BOD_MAX",
            "1",
            "SIDELOG_CAPTURE__BOD_MAX: capture.bod_max: unknown key, did you mean \"body_max\"?",
        ),
        (
            "SIDELOG_CAPTURE__ENABLED",
            "yes",
            "SIDELOG_CAPTURE__ENABLED: capture.enabled: expected true or false, not \"yes\"",
        ),
        (
            "SIDELOG_FRAME__MAX_RECORDS",
            "many",
            "SIDELOG_FRAME__MAX_RECORDS: frame.max_records: expected a whole number, such as 4, not \"many\"",
        ),
        (
            "SIDELOG_LISTENERS__3__ADDRESS",
            "1",
            "SIDELOG_LISTENERS__3__ADDRESS: listeners.3.address: the elements of listeners are numbered from 0",
        ),
        (
            "SIDELOG_ADMIN__ADDRESS",
            "9901",
            "SIDELOG_ADMIN__ADDRESS: admin.address: \"9901\" is not an address to listen at",
        ),
    ] {
        let error = from_env(&[(name, value)]).expect_err(name);
        assert!(
            error.starts_with(expected),
            "{name}={value}\n  says {error}\n  not  {expected}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn kubernetes_and_empty_variables_change_nothing() {
    let settings = from_env(&[
        ("SIDELOG_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("SIDELOG_PROXY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PORT", ""),
        ("SERVICE_NAME", " "),
        ("NATS_URL", ""),
        ("LOKI_URL", "the consumer's"),
        ("SIDELOG_CAPTURE__BODY_MAX", ""),
    ]);
    assert_eq!(settings, Ok(Settings::default()));
}

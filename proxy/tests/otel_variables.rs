//! The variables of OpenTelemetry's specification: each that concerns traces has an effect, or is refused by name.

#![expect(clippy::expect_used, reason = "a test stops where something is not as it needs it")]

use std::time::Duration;

use sidelog_chassis::logging::LogLevel;
use sidelog_chassis::settings::{Environment, load};
use sidelog_proxy::settings::{Compression, OtlpProtocol, PROGRAM, Settings};

fn from(variables: &[(&str, &str)]) -> Result<Settings, String> {
    let env: Environment = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    load(&PROGRAM, None, &env).map_err(|error| error.to_string())
}

fn set(variables: &[(&str, &str)]) -> Settings {
    from(variables).expect("good variables")
}

/// A variable, a value, and whether it shows in the settings.
type Effect = (&'static str, &'static str, fn(&Settings) -> bool);

const EFFECTS: &[Effect] = &[
    ("OTEL_SERVICE_NAME", "api", |settings| settings.service.name == "api"),
    ("OTEL_SDK_DISABLED", "TRUE", |settings| !settings.traces.enabled),
    ("OTEL_TRACES_EXPORTER", "none", |settings| !settings.traces.enabled),
    ("OTEL_PROPAGATORS", "none", |settings| !settings.traces.propagate),
    ("OTEL_PROPAGATORS", "baggage", |settings| !settings.traces.propagate),
    ("OTEL_LOG_LEVEL", "DEBUG", |settings| {
        settings.log.level == LogLevel::Debug
    }),
    ("OTEL_TRACES_SAMPLER", "always_on", |settings| {
        !settings.traces.parent_based
    }),
    ("OTEL_TRACES_SAMPLER", "parentbased_always_off", |settings| {
        settings.traces.sample == 0.0
    }),
    ("OTEL_TRACES_SAMPLER_ARG", "0.25", |settings| {
        settings.traces.sample == 0.25
    }),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/x", |settings| {
        settings.traces.endpoint.to_string() == "http://c:4318/x/v1/traces"
    }),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x", |settings| {
        settings.traces.url() == "http://c:4318/x"
    }),
    ("OTEL_EXPORTER_OTLP_INSECURE", "false", |settings| {
        settings.traces.url() == "https://localhost:4317"
    }),
    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false", |settings| {
        settings.traces.is_tls()
    }),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", |settings| {
        settings.traces.url() == "http://localhost:4318/v1/traces"
    }),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", |settings| {
        settings.traces.protocol == Some(OtlpProtocol::Grpc)
    }),
    ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b", |settings| {
        settings
            .traces
            .headers
            .get()
            .get("api-key")
            .is_some_and(|value| value == "a b")
    }),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=1,y=2", |settings| {
        settings.traces.headers.get().len() == 2
    }),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", |settings| {
        settings.traces.compression == Compression::Gzip
    }),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip", |settings| {
        settings.traces.compression == Compression::Gzip
    }),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500", |settings| {
        settings.traces.timeout == Duration::from_millis(1500)
    }),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "70", |settings| {
        settings.traces.timeout == Duration::from_millis(70)
    }),
    ("OTEL_BSP_SCHEDULE_DELAY", "5000", |settings| {
        settings.traces.linger == Duration::from_secs(5)
    }),
    ("OTEL_BSP_EXPORT_TIMEOUT", "9000", |settings| {
        settings.traces.export_timeout == Duration::from_secs(9)
    }),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "2048", |settings| {
        settings.traces.queue_max == 2048
    }),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100", |settings| {
        settings.traces.batch_max == 100
    }),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "7", |settings| {
        settings.traces.attributes_max == 7
    }),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "7", |settings| {
        settings.traces.attributes_max == 7
    }),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "70", |settings| {
        settings.traces.attribute_value_max == 70
    }),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "70", |settings| {
        settings.traces.attribute_value_max == 70
    }),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "0", |settings| {
        settings.traces.links_max == 0
    }),
    ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, BREW", |settings| {
        settings.traces.known_methods == ["GET", "BREW"]
    }),
];

#[test]
fn a_variable_that_is_honoured_has_its_effect() {
    for (name, value, shows) in EFFECTS {
        assert!(!shows(&Settings::default()), "{name}={value} is the default");
        assert!(shows(&set(&[(name, value)])), "{name}={value} has no effect");
    }
}

#[test]
fn certificates_are_honoured_with_the_more_special_ones_first() {
    let settings = set(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
    ]);
    let tls = &settings.traces.tls;
    assert_eq!(tls.ca_file.as_deref(), Some("/ca".as_ref()));
    assert_eq!(tls.cert_file.as_deref(), Some("/cert".as_ref()));
    assert_eq!(tls.key_file.as_deref(), Some("/key".as_ref()));
    let settings = set(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own-ca"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/own-cert"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/own-key"),
    ]);
    let tls = &settings.traces.tls;
    assert_eq!(tls.ca_file.as_deref(), Some("/own-ca".as_ref()));
    assert_eq!(tls.cert_file.as_deref(), Some("/own-cert".as_ref()));
    assert_eq!(tls.key_file.as_deref(), Some("/own-key".as_ref()));
}

#[test]
fn every_sampler_of_the_specification_is_a_share_with_or_without_its_parent() {
    for (sampler, argument, expected) in [
        ("always_on", "0.5", (false, 1.0)),
        ("always_off", "0.5", (false, 0.0)),
        ("traceidratio", "0.5", (false, 0.5)),
        ("traceidratio", "", (false, 1.0)),
        ("parentbased_always_on", "0.5", (true, 1.0)),
        ("parentbased_always_off", "0.5", (true, 0.0)),
        ("parentbased_traceidratio", "0.5", (true, 0.5)),
    ] {
        let settings = set(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
        let traces = settings.traces;
        assert_eq!((traces.parent_based, traces.sample), expected, "{sampler} {argument}");
    }
}

#[test]
fn resource_attributes_say_who_we_are_and_the_rest_goes_with_spans() {
    let list =
        "service.name=one,service.version=1.2,service.instance.id=a%2Cb,deployment.environment=test,cloud.region=eu";
    let settings = set(&[("OTEL_RESOURCE_ATTRIBUTES", list), ("SERVICE_NAME", "of-its-own")]);
    let service = &settings.service;
    assert_eq!((service.name.as_str(), service.environment.as_str()), ("one", "test"));
    assert_eq!(
        (service.version.as_deref(), service.instance_id.as_deref()),
        (Some("1.2"), Some("a,b"))
    );
    assert_eq!(settings.traces.resource.len(), 1);
    assert_eq!(settings.traces.resource["cloud.region"], "eu");
    let settings = set(&[("OTEL_RESOURCE_ATTRIBUTES", list), ("OTEL_SERVICE_NAME", "two")]);
    assert_eq!(settings.service.name, "two");
}

#[test]
fn what_is_the_default_anyway_changes_nothing() {
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "false"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "128"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "128"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "128"),
        ("OTEL_SEMCONV_STABILITY_OPT_IN", "http"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_LOGS_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "nonsense"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "nonsense"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
    ] {
        assert_eq!(from(&[(name, value)]), Ok(Settings::default()), "{name}={value}");
    }
    let both = [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "otlp")];
    assert!(!set(&both).traces.enabled, "a disabled SDK has no exporter");
    let both = [("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "none")];
    assert!(!set(&both).traces.enabled);
}

/// A variable, a value, and what the refusal says to write.
const REFUSED: &[(&str, &str, &str)] = &[
    ("OTEL_SDK_DISABLED", "yes", "write true or false"),
    (
        "OTEL_PROPAGATORS",
        "tracecontext,b3",
        "\"b3\" is not propagated; write \"tracecontext,baggage\"",
    ),
    ("OTEL_TRACES_EXPORTER", "zipkin", "write \"otlp\" or \"none\""),
    ("OTEL_TRACES_EXPORTER", "otlp,console", "write \"otlp\" or \"none\""),
    ("OTEL_TRACES_SAMPLER", "jaeger_remote", "write one of always_on"),
    ("OTEL_TRACES_SAMPLER", "xray", "write one of always_on"),
    (
        "OTEL_TRACES_SAMPLER",
        "parentbased_jaeger_remote",
        "write one of always_on",
    ),
    (
        "OTEL_TRACES_SAMPLER_ARG",
        "2",
        "is not a share; write 0.0 (none) to 1.0 (all)",
    ),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://c", "write host and port"),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://c:4317/x",
        "write traces.protocol = \"http/protobuf\"",
    ),
    (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/json",
        "expected \"grpc\" or \"http/protobuf\"",
    ),
    ("OTEL_EXPORTER_OTLP_HEADERS", "api-key", "write \"name=value\""),
    (
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "10s",
        "is not a number of milliseconds; write one, such as 10000",
    ),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "0 is no time at all"),
    (
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "zstd",
        "expected \"none\" or \"gzip\"",
    ),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca", "is not TLS; write https://"),
    (
        "OTEL_EXPORTER_OTLP_SPAN_INSECURE",
        "true",
        "write OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    ),
    ("OTEL_EXPORTER_OTLP_INSECURE", "1", "write true or false"),
    ("OTEL_BSP_SCHEDULE_DELAY", "-1", "is not a number of milliseconds"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "0 is too few; write 1 or more"),
    (
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "9000",
        "is more than traces.queue_max",
    ),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "few", "write a whole number"),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "few", "expected a whole number"),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=a,b",
        "\"b\" is not an attribute; write name=value",
    ),
    ("OTEL_LOG_LEVEL", "loud", "expected \"error\" or"),
    (
        "OTEL_ENTITIES",
        "service{service.name=a}",
        "write the attributes into OTEL_RESOURCE_ATTRIBUTES",
    ),
    ("OTEL_CONFIG_FILE", "/otel.yaml", "write [traces] into its own file"),
    (
        "OTEL_EXPERIMENTAL_CONFIG_FILE",
        "/otel.yaml",
        "write [traces] into its own file",
    ),
    (
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT",
        "http://z",
        "spans go by OTLP, not Zipkin",
    ),
    ("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "1", "spans go by OTLP, not Zipkin"),
    ("OTEL_EXPORTER_JAEGER_AGENT_HOST", "j", "write JAEGER_URL=host:4317"),
    ("OTEL_EXPORTER_JAEGER_AGENT_PORT", "6831", "write JAEGER_URL=host:4317"),
    (
        "OTEL_EXPORTER_JAEGER_ENDPOINT",
        "http://j",
        "write JAEGER_URL=host:4317",
    ),
    ("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup", "leave it out"),
    ("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs", "unset it"),
];

#[test]
fn what_is_not_honoured_is_refused_by_name_with_what_to_write() {
    for (name, value, advice) in REFUSED {
        let error = from(&[(name, value)]).expect_err(name);
        assert!(error.starts_with(&format!("{name}: ")), "{name}={value} says {error}");
        assert!(
            error.contains(advice),
            "{name}={value}\n  says {error}\n  not  {advice}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_header_of_the_collector_is_never_shown() {
    let settings = set(&[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SECRET")]);
    assert!(!format!("{settings:?}").contains("SECRET"));
    let error = from(&[("OTEL_EXPORTER_OTLP_HEADERS", "api-key SECRET")]).expect_err("malformed");
    assert!(!error.contains("SECRET"), "{error}");
}

#[test]
fn every_variable_has_a_case_here() {
    let cases = include_str!("otel_variables.rs");
    let names: Vec<_> = PROGRAM.variables.iter().map(|variable| variable.name).collect();
    let otel: Vec<_> = names.iter().filter(|name| name.starts_with("OTEL_")).collect();
    assert!(otel.len() > 50, "{otel:?}");
    for name in otel {
        assert!(cases.contains(&format!("\"{name}\"")), "{name}");
    }
}

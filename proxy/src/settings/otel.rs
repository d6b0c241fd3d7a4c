//! The variables of OpenTelemetry's specification: which key each sets, and which are refused.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>, and those of OTLP and of the HTTP
//! conventions. What speaks of traces is honoured, or refused by a sentence that says what to write; what speaks of
//! metrics and logs alone is none of sidelog's, which makes neither by OpenTelemetry.
//!
//! Invariant: no variable that concerns traces is silently ignored (`proxy/tests/otel_variables.rs`).

use percent_encoding::percent_decode_str;
use sidelog_chassis::settings::{Variable, as_text};
use toml::{Table, Value};

use super::collector;

/// What a conversion gives.
type Converted = Result<Option<Value>, String>;

const fn text(name: &'static str, key: &'static str) -> Variable {
    converted(name, key, as_text)
}

const fn converted(name: &'static str, key: &'static str, convert: fn(&str) -> Converted) -> Variable {
    Variable { name, key, convert }
}

/// A variable that is looked at and sets nothing.
const fn checked(name: &'static str, convert: fn(&str) -> Converted) -> Variable {
    converted(name, "", convert)
}

/// All of them. Where two set one key, the later one wins.
pub(super) const VARIABLES: [Variable; 55] = [
    // Who we are. The name of its own wins over the one among the attributes.
    converted("OTEL_RESOURCE_ATTRIBUTES", "service.name", resource_name),
    converted("OTEL_RESOURCE_ATTRIBUTES", "service.version", resource_version),
    converted("OTEL_RESOURCE_ATTRIBUTES", "service.environment", resource_environment),
    converted("OTEL_RESOURCE_ATTRIBUTES", "service.instance_id", resource_instance),
    converted("OTEL_RESOURCE_ATTRIBUTES", "traces.resource", resource_rest),
    text("OTEL_SERVICE_NAME", "service.name"),
    checked("OTEL_ENTITIES", |_| {
        refused("sidelog knows no entities; write the attributes into OTEL_RESOURCE_ATTRIBUTES")
    }),
    // Whether, and what for. A disabled SDK wins over an exporter.
    converted("OTEL_TRACES_EXPORTER", "traces.enabled", exporter),
    converted("OTEL_SDK_DISABLED", "traces.enabled", disabled),
    converted("OTEL_PROPAGATORS", "traces.propagate", propagators),
    converted("OTEL_LOG_LEVEL", "log.level", lower_case),
    checked("OTEL_CONFIG_FILE", no_config_file),
    checked("OTEL_EXPERIMENTAL_CONFIG_FILE", no_config_file),
    // Sampling. The sampler that has no argument wins over the argument.
    converted("OTEL_TRACES_SAMPLER_ARG", "traces.sample", as_text),
    converted("OTEL_TRACES_SAMPLER", "traces.sample", sampler_share),
    converted("OTEL_TRACES_SAMPLER", "traces.parent_based", sampler_parent),
    // Where to, and how.
    converted("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint", base_endpoint),
    converted("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces.endpoint", traces_endpoint),
    converted("OTEL_EXPORTER_OTLP_INSECURE", "traces.insecure", boolean),
    converted("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "traces.insecure", boolean),
    checked("OTEL_EXPORTER_OTLP_SPAN_INSECURE", |_| {
        refused("the specification has renamed it; write OTEL_EXPORTER_OTLP_TRACES_INSECURE")
    }),
    text("OTEL_EXPORTER_OTLP_PROTOCOL", "traces.protocol"),
    text("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "traces.protocol"),
    text("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    text("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "traces.headers"),
    text("OTEL_EXPORTER_OTLP_COMPRESSION", "traces.compression"),
    text("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "traces.compression"),
    converted("OTEL_EXPORTER_OTLP_TIMEOUT", "traces.timeout", milliseconds),
    converted("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "traces.timeout", milliseconds),
    text("OTEL_EXPORTER_OTLP_CERTIFICATE", "traces.tls.ca_file"),
    text("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "traces.tls.ca_file"),
    text("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "traces.tls.cert_file"),
    text("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "traces.tls.cert_file"),
    text("OTEL_EXPORTER_OTLP_CLIENT_KEY", "traces.tls.key_file"),
    text("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "traces.tls.key_file"),
    checked("OTEL_EXPORTER_ZIPKIN_ENDPOINT", no_zipkin),
    checked("OTEL_EXPORTER_ZIPKIN_TIMEOUT", no_zipkin),
    checked("OTEL_EXPORTER_JAEGER_ENDPOINT", no_jaeger),
    checked("OTEL_EXPORTER_JAEGER_AGENT_HOST", no_jaeger),
    checked("OTEL_EXPORTER_JAEGER_AGENT_PORT", no_jaeger),
    // The batches.
    converted("OTEL_BSP_SCHEDULE_DELAY", "traces.linger", milliseconds),
    converted("OTEL_BSP_EXPORT_TIMEOUT", "traces.export_timeout", milliseconds),
    text("OTEL_BSP_MAX_QUEUE_SIZE", "traces.queue_max"),
    text("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "traces.batch_max"),
    // Limits. Spans of sidelog have no events, and their links no attributes: such limits are always kept.
    text("OTEL_ATTRIBUTE_COUNT_LIMIT", "traces.attributes_max"),
    text("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "traces.attributes_max"),
    text("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "traces.attribute_value_max"),
    text("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "traces.attribute_value_max"),
    text("OTEL_SPAN_LINK_COUNT_LIMIT", "traces.links_max"),
    checked("OTEL_SPAN_EVENT_COUNT_LIMIT", kept_limit),
    checked("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", kept_limit),
    checked("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", kept_limit),
    // The conventions.
    text("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "traces.known_methods"),
    checked("OTEL_SEMCONV_STABILITY_OPT_IN", stability),
    checked("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", no_exceptions),
];

fn refused(advice: &str) -> Converted {
    Err(advice.to_owned())
}

fn no_config_file(_: &str) -> Converted {
    refused(
        "sidelog doesn't read OpenTelemetry's declarative configuration; write [traces] into its own file (--config)",
    )
}

fn no_zipkin(_: &str) -> Converted {
    refused(
        "spans go by OTLP, not Zipkin; unset it, and write the collector's address into OTEL_EXPORTER_OTLP_ENDPOINT",
    )
}

fn no_jaeger(_: &str) -> Converted {
    refused("spans go by OTLP, which Jaeger takes at port 4317; unset it, and write JAEGER_URL=host:4317")
}

fn no_exceptions(_: &str) -> Converted {
    refused("spans of a proxy have no exceptions, neither as events nor as logs; unset it")
}

fn base_endpoint(text: &str) -> Converted {
    as_text(&collector::from_base(text))
}

fn traces_endpoint(text: &str) -> Converted {
    as_text(&collector::verbatim(text))
}

fn lower_case(text: &str) -> Converted {
    as_text(&text.trim().to_ascii_lowercase())
}

fn boolean(text: &str) -> Converted {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(Some(Value::Boolean(true))),
        "false" => Ok(Some(Value::Boolean(false))),
        _ => Err(format!("{text:?} is neither; write true or false")),
    }
}

/// `OTEL_SDK_DISABLED`: only `true` says something.
fn disabled(text: &str) -> Converted {
    let is_disabled = boolean(text)? == Some(Value::Boolean(true));
    Ok(is_disabled.then_some(Value::Boolean(false)))
}

/// The words of a comma-separated list.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn exporter(text: &str) -> Converted {
    let exporters: Vec<_> = words(text).collect();
    match exporters.as_slice() {
        ["otlp"] => Ok(Some(Value::Boolean(true))),
        ["none"] => Ok(Some(Value::Boolean(false))),
        _ => Err(format!(
            "{text:?} is not an exporter of sidelog's; write \"otlp\" or \"none\""
        )),
    }
}

fn propagators(text: &str) -> Converted {
    let other = words(text).find(|name| !matches!(*name, "tracecontext" | "baggage" | "none"));
    match other {
        Some(name) => Err(format!(
            "{name:?} is not propagated; write \"tracecontext,baggage\", or \"none\" to pass trace headers as they come"
        )),
        None => Ok(Some(Value::Boolean(words(text).any(|name| name == "tracecontext")))),
    }
}

/// The share that a sampler without an argument stands for.
fn sampler_share(text: &str) -> Converted {
    match text.trim() {
        "always_on" | "parentbased_always_on" => Ok(Some(Value::Float(1.0))),
        "always_off" | "parentbased_always_off" => Ok(Some(Value::Float(0.0))),
        "traceidratio" | "parentbased_traceidratio" => Ok(None),
        other => Err(format!(
            "{other:?} is not a sampler of sidelog's; write one of always_on, always_off, traceidratio, \
             parentbased_always_on, parentbased_always_off, parentbased_traceidratio"
        )),
    }
}

/// Whether a sampler heeds the parent. An unknown one is refused for its share.
fn sampler_parent(text: &str) -> Converted {
    Ok(match text.trim() {
        "always_on" | "always_off" | "traceidratio" => Some(Value::Boolean(false)),
        name if name.starts_with("parentbased_") => Some(Value::Boolean(true)),
        _ => None,
    })
}

fn milliseconds(text: &str) -> Converted {
    match text.trim().parse::<u32>() {
        Ok(number) => as_text(&format!("{number}ms")),
        Err(_) => Err(format!(
            "{text:?} is not a number of milliseconds; write one, such as 10000"
        )),
    }
}

fn kept_limit(text: &str) -> Converted {
    match text.trim().parse::<u32>() {
        Ok(_) => Ok(None),
        Err(_) => Err(format!("{text:?} is not a limit; write a whole number, such as 128")),
    }
}

/// Spans follow the stable conventions of HTTP, and no others.
fn stability(text: &str) -> Converted {
    match words(text).find(|word| word.ends_with("/dup")) {
        Some(word) => Err(format!(
            "{word:?} asks for the old conventions too, which sidelog doesn't know; leave it out"
        )),
        None => Ok(None),
    }
}

/// `name=value` pairs, percent-decoded (the format of W3C Baggage, without properties).
fn resource(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = percent_decode_str(name.trim()).decode_utf8().ok()?;
        (!name.is_empty()).then(|| (name.into_owned(), value.into_owned()))
    };
    words(text)
        .map(|part| {
            pair(part)
                .ok_or_else(|| format!("{part:?} is not an attribute; write name=value, several parted by commas"))
        })
        .collect()
}

/// One attribute; where there are several of the name, the last one. A malformed list is refused once, for the rest.
fn resource_value(text: &str, names: &[&str]) -> Converted {
    let attributes = resource(text).unwrap_or_default();
    let found = attributes
        .into_iter()
        .rfind(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
    Ok(found.map(|(_, value)| Value::String(value)))
}

const NAME: &[&str] = &["service.name"];
const VERSION: &[&str] = &["service.version"];
const INSTANCE: &[&str] = &["service.instance.id"];
const ENVIRONMENT: &[&str] = &["deployment.environment.name", "deployment.environment"];

fn resource_name(text: &str) -> Converted {
    resource_value(text, NAME)
}

fn resource_version(text: &str) -> Converted {
    resource_value(text, VERSION)
}

fn resource_instance(text: &str) -> Converted {
    resource_value(text, INSTANCE)
}

fn resource_environment(text: &str) -> Converted {
    resource_value(text, ENVIRONMENT)
}

fn resource_rest(text: &str) -> Converted {
    let is_of_service = |name: &str| [NAME, VERSION, INSTANCE, ENVIRONMENT].concat().contains(&name);
    let rest = resource(text)?.into_iter().filter(|(name, _)| !is_of_service(name));
    let table: Table = rest.map(|(name, value)| (name, Value::String(value))).collect();
    Ok((!table.is_empty()).then_some(Value::Table(table)))
}

//! Owns how it is decided whether spans are made, and where they go: the configuration file first, then the
//! `OTEL_*` variables, then the specification's defaults.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::collector::{HttpCollector, Place, Security};
use super::error::StartError;
use super::identity::fetch;
use super::outbound::origin_trust;
use super::settings::Settings;
use crate::config::located::Located;
use crate::config::otel_env::{
    EnvCompression, EnvSampler, Follows, HEADER_VARIABLES, OtelEnv, header_pairs,
};
use crate::config::policy::UpstreamSpec;
use crate::config::source::SourceSpec;
use crate::config::telemetry::{CompressionSpec, OtlpSpec};
use crate::config::units::Number;
use crate::credential::open::SourceContext;
use crate::credential::source::SourceError;
use crate::telemetry::gate::SecretSearch;
use crate::telemetry::otlp::{self, Batches, Coding, Collector as _};
use crate::telemetry::sampler::{ParentSays, Root, Sampler};
use crate::telemetry::sink_metrics::SinkMetrics;
use crate::telemetry::traces::Traces;
use crate::tls::upstream::{Alpn, OriginTrust};

/// `OTEL_EXPORTER_OTLP_TIMEOUT`, when nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The one protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";
/// What the specification puts behind a base URL.
const TRACES_PATH: &str = "/v1/traces";

/// What spans need of the process.
pub struct Surroundings {
    /// Where secrets come from.
    pub context: SourceContext,
    /// Whose certificates are believed.
    pub trust: OriginTrust,
    /// What must not stand in a span.
    pub search: SecretSearch,
    /// What is counted.
    pub metrics: SinkMetrics,
}

/// Starts the export of spans if anything names a collector.
///
/// Errors: a protocol that is not spoken, an address that is none, a secret or a certificate that is not there.
pub async fn open_traces(
    settings: &Settings,
    surroundings: Surroundings,
) -> Result<Traces, StartError> {
    let spec = &settings.root.spec.telemetry.otlp;
    let env = OtelEnv::of_process();
    let Some(endpoint) = endpoint(spec, &env)? else {
        return Ok(Traces::off());
    };
    for note in &env.notes {
        tracing::warn!("{note}");
    }
    let Surroundings { context, trust, .. } = &surroundings;
    let collector = collector(spec, &env, &endpoint, context, trust).await?;
    let settings = otlp::Settings {
        sampler: sampler(spec, &env)?,
        resource: resource(spec, &env),
        coding: coding(spec, &env),
        batch: batches(&env),
    };
    tracing::info!(collector = %endpoint.place.host, port = endpoint.place.port, "spans are sent");
    otlp::start(
        settings,
        Arc::new(collector),
        surroundings.search,
        tokio::runtime::Handle::current(),
        surroundings.metrics,
    )
    .map_err(|error| StartError::setting(format!("no thread for spans: {error}"), ""))
}

/// Where spans would go, and what is wrong with that, without sending any.
pub async fn destination(
    settings: &Settings,
    context: &SourceContext,
) -> Result<Option<String>, StartError> {
    let spec = &settings.root.spec.telemetry.otlp;
    let env = OtelEnv::of_process();
    let Some(endpoint) = endpoint(spec, &env)? else {
        return Ok(None);
    };
    sampler(spec, &env)?;
    let trust = origin_trust(settings)?;
    let collector = collector(spec, &env, &endpoint, context, &trust).await?;
    Ok(Some(collector.name()))
}

/// Where spans go, and who says so.
#[derive(Debug)]
struct Endpoint {
    place: Place,
    said_by: &'static str,
}

/// Where spans go; nothing where they go nowhere.
fn endpoint(spec: &OtlpSpec, env: &OtelEnv) -> Result<Option<Endpoint>, StartError> {
    if env.off.is_some() {
        return Ok(None);
    }
    let written = spec.endpoint.as_ref().map(|base| {
        let base = base.value.trim_end_matches('/');
        // Whoever writes the whole URL means it.
        match base.ends_with(TRACES_PATH) {
            true => base.to_owned(),
            false => format!("{base}{TRACES_PATH}"),
        }
    });
    let (url, said_by) = match (written, &env.endpoint) {
        (Some(url), _) => (url, "spec.telemetry.otlp.endpoint"),
        (None, Some(url)) => (url.clone(), "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (None, None) => return Ok(None),
    };
    if let Some((variable, protocol)) = &env.protocol
        && protocol != PROTOCOL
    {
        return Err(StartError::setting(
            format!("{variable} asks for `{protocol}`, and only `{PROTOCOL}` is spoken"),
            format!(
                "set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL={PROTOCOL} and an endpoint that speaks it (port 4318, as a rule), or OTEL_TRACES_EXPORTER=none"
            ),
        ));
    }
    let place = Place::parse(&url).map_err(|error| {
        // What is written in place of a URL is not repeated: it may hold a password.
        StartError::setting(
            format!("{said_by} {error}"),
            "write `http://collector:4318` or `https://…`; what it is to be shown goes into spec.telemetry.otlp.headers",
        )
    })?;
    Ok(Some(Endpoint { place, said_by }))
}

async fn collector(
    spec: &OtlpSpec,
    env: &OtelEnv,
    endpoint: &Endpoint,
    context: &SourceContext,
    trust: &OriginTrust,
) -> Result<HttpCollector, StartError> {
    let headers = headers(spec, context).await?;
    let file = |written: &Option<PathBuf>, variable: &Option<String>| {
        written
            .clone()
            .or_else(|| variable.as_ref().map(PathBuf::from))
    };
    let upstream = UpstreamSpec {
        ca_file: file(&spec.ca_file, &env.certificate),
        client_certificate_file: file(&spec.client_certificate_file, &env.client_certificate),
        client_key_file: file(&spec.client_key_file, &env.client_key),
    };
    let tls = match endpoint.place.security {
        Security::Tls => {
            let config = trust.client_config(&upstream, Alpn::Http1);
            Some(config.map_err(|e| StartError::setting(&e, e.help().unwrap_or_default()))?)
        }
        Security::Cleartext if upstream != UpstreamSpec::default() => {
            return Err(StartError::setting(
                format!(
                    "{} is not https, and certificates are named for it",
                    endpoint.said_by
                ),
                "write `https://`, or remove them",
            ));
        }
        Security::Cleartext => None,
    };
    let host = endpoint.place.host.as_str();
    let is_near = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if tls.is_none() && !headers.is_empty() && !is_near {
        tracing::warn!(
            collector = host,
            "what the collector is shown goes there in the clear; write https"
        );
    }
    let limit = spec.timeout.map(|span| span.0).or(env.timeout);
    let limit = limit.unwrap_or(TIMEOUT);
    Ok(HttpCollector::new(
        endpoint.place.clone(),
        tls,
        headers,
        limit,
    ))
}

/// What the collector is shown: variables first, and what the file names over them.
async fn headers(spec: &OtlpSpec, context: &SourceContext) -> Result<HeaderMap, StartError> {
    let mut headers = HeaderMap::new();
    for variable in HEADER_VARIABLES {
        let form = crate::credential::source::Form::Line;
        let fetched = match context.env.fetch(variable, form) {
            Ok(fetched) => fetched,
            Err(SourceError::Missing(_)) => continue,
            Err(error) => return Err(StartError::setting(error, "")),
        };
        let wrong = || {
            StartError::setting(
                format!("{variable} is not a list of `name=value`, separated by commas"),
                "percent-encode what a value has of blanks, commas and other signs: `authorization=Bearer%20…`",
            )
        };
        let text = std::str::from_utf8(fetched.secret.expose()).map_err(|_| wrong())?;
        for (name, value) in header_pairs(text).ok_or_else(wrong)? {
            insert(&mut headers, &name, value.as_bytes()).ok_or_else(wrong)?;
        }
        // The signal's own variable stands alone.
        break;
    }
    for (name, source) in &spec.headers {
        let what = format!("collector's field {name}");
        let source: &SourceSpec = source;
        let secret = fetch(&what, source, context).await?;
        insert(&mut headers, name, secret.expose()).ok_or_else(|| {
            StartError::setting(
                format!(
                    "spec.telemetry.otlp.headers: `{name}`, or its value, cannot stand in a request"
                ),
                "a name is letters, digits and `-`; a value is one line",
            )
        })?;
    }
    Ok(headers)
}

fn insert(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Option<()> {
    let name = HeaderName::try_from(name.to_ascii_lowercase()).ok()?;
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Some(())
}

fn sampler(spec: &OtlpSpec, env: &OtelEnv) -> Result<Sampler, StartError> {
    let root = |ratio: f64| match ratio {
        ratio if ratio >= 1.0 => Root::Always,
        ratio if ratio <= 0.0 => Root::Never,
        ratio => Root::Ratio(ratio),
    };
    if let Some(written) = &spec.sample_ratio {
        return Ok(Sampler {
            parent: ParentSays::All,
            root: root(ratio_of(written)?),
        });
    }
    Ok(match env.sampler {
        None => Sampler::default(),
        Some(EnvSampler { follows, ratio }) => Sampler {
            parent: match follows {
                Follows::Parent => ParentSays::All,
                Follows::Nobody => ParentSays::Nothing,
            },
            root: root(ratio),
        },
    })
}

fn ratio_of(written: &Located<Number>) -> Result<f64, StartError> {
    let millionths = written.value.scaled(6).filter(|m| *m <= 1_000_000);
    let millionths = millionths.ok_or_else(|| {
        StartError::setting(
            format!(
                "spec.telemetry.otlp.sampleRatio: `{}` is no part of a whole",
                written.value
            ),
            "write a number from 0 to 1, with at most 6 decimals",
        )
    })?;
    Ok(millionths as f64 / 1e6)
}

fn coding(spec: &OtlpSpec, env: &OtelEnv) -> Coding {
    match (spec.compression, env.compression) {
        (Some(CompressionSpec::Gzip), _) | (None, Some(EnvCompression::Gzip)) => Coding::Gzip,
        _ => Coding::Identity,
    }
}

fn batches(env: &OtelEnv) -> Batches {
    let usual = Batches::default();
    let queue = env.queue.unwrap_or(usual.queue);
    Batches {
        queue,
        // More than can wait never come together.
        most: env.batch.unwrap_or(usual.most).min(queue),
        delay: env.delay.unwrap_or(usual.delay),
        patience: env.patience.unwrap_or(usual.patience),
    }
}

/// What every span is said to come from: the name of the file, of its variable, of the list, or ours.
fn resource(spec: &OtlpSpec, env: &OtelEnv) -> Vec<(String, String)> {
    const SERVICE: &str = "service.name";
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut all = vec![
        own(SERVICE, "tollgate"),
        own("service.version", env!("CARGO_PKG_VERSION")),
        own("telemetry.sdk.name", "tollgate"),
        own("telemetry.sdk.language", "rust"),
        own("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let written = spec.resource.iter().map(|(key, value)| own(key, value));
    let named = [&env.service_name, &spec.service_name];
    let named = named.into_iter().flatten().map(|name| own(SERVICE, name));
    for (key, value) in env.resource.iter().cloned().chain(named).chain(written) {
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => all.push((key, value)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(endpoint: Option<&str>) -> OtlpSpec {
        OtlpSpec {
            endpoint: endpoint.map(|url| Located::unwritten(url.to_owned())),
            ..OtlpSpec::default()
        }
    }

    fn env(variables: &[(&str, &str)]) -> OtelEnv {
        OtelEnv::read(|name| {
            let mut found = variables.iter().filter(|(known, _)| *known == name);
            found.next().map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn spans_go_where_the_file_says_or_else_the_variables_or_nowhere() {
        const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318");
        const OFF: (&str, &str) = ("OTEL_SDK_DISABLED", "true");
        const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let file = Some("http://file:4318/");
        for (written, variables, expected) in [
            (None, &[][..], None),
            (None, &[BASE][..], Some(("env", "/v1/traces"))),
            (file, &[], Some(("file", "/v1/traces"))),
            (file, &[BASE, HTTP], Some(("file", "/v1/traces"))),
            (
                Some("http://file:1/x/v1/traces"),
                &[],
                Some(("file", "/x/v1/traces")),
            ),
            (file, &[OFF], None),
            (file, &[("OTEL_TRACES_EXPORTER", "none")], None),
        ] {
            let found = endpoint(&spec(written), &env(variables)).unwrap();
            let found = found
                .as_ref()
                .map(|e| (e.place.host.as_str(), e.place.path.as_str()));
            assert_eq!(found, expected, "{written:?} {variables:?}");
        }
    }

    #[test]
    fn a_protocol_that_is_not_spoken_is_an_error_that_names_the_one_that_is() {
        for protocol in ["grpc", "http/json"] {
            let env = env(&[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
            // Platforms set it for all; it hurts only who wants spans.
            assert!(endpoint(&spec(None), &env).unwrap().is_none());
            let error = endpoint(&spec(Some("http://c:4317")), &env).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(protocol) && text.contains("http/protobuf"),
                "{text}"
            );
        }
        for url in ["c:4318", "http://me:secret@c:4318"] {
            let text = endpoint(&spec(Some(url)), &env(&[]))
                .unwrap_err()
                .to_string();
            assert!(text.contains("spec.telemetry.otlp.endpoint") && !text.contains("secret"));
        }
    }

    #[test]
    fn what_the_file_says_of_the_service_wins() {
        let env = env(&[
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=list,team=a,zone=1",
            ),
            ("OTEL_SERVICE_NAME", "variable"),
        ]);
        let name = |spec: &OtlpSpec, env: &OtelEnv| {
            let all = resource(spec, env);
            let get = |key: &str| all.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
            (get("service.name"), get("team"), get("zone"))
        };
        let some = |text: &str| Some(text.to_owned());
        let mut written = OtlpSpec::default();
        assert_eq!(
            name(&written, &OtelEnv::default()),
            (some("tollgate"), None, None)
        );
        assert_eq!(
            name(&written, &env),
            (some("variable"), some("a"), some("1"))
        );
        written.service_name = some("file");
        written.resource.insert("team".to_owned(), "b".to_owned());
        assert_eq!(name(&written, &env), (some("file"), some("b"), some("1")));
    }

    #[test]
    fn samplers_and_batches_are_as_written() {
        let read = |variables: &[(&str, &str)]| sampler(&spec(None), &env(variables)).unwrap();
        assert_eq!(read(&[]), Sampler::default());
        let ratio = read(&[
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ]);
        assert_eq!(
            (ratio.parent, ratio.root),
            (ParentSays::Nothing, Root::Ratio(0.5))
        );
        let mut written = spec(None);
        written.sample_ratio = Some(Located::unwritten(Number("0.25".to_owned())));
        let file = sampler(&written, &OtelEnv::default()).unwrap();
        assert_eq!(
            (file.parent, file.root),
            (ParentSays::All, Root::Ratio(0.25))
        );
        written.sample_ratio = Some(Located::unwritten(Number("1.5".to_owned())));
        assert!(sampler(&written, &OtelEnv::default()).is_err());
        assert_eq!(batches(&env(&[])), Batches::default());
        let small = batches(&env(&[("OTEL_BSP_MAX_QUEUE_SIZE", "10")]));
        assert_eq!((small.queue, small.most), (10, 10));
    }
}

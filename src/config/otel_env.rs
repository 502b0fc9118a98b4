//! Owns what the `OTEL_*` variables say of traces
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). A value that cannot
//! be used is noted and counts as absent, as the specification asks; a protocol that is not spoken is an error.

use std::time::Duration;

use percent_encoding::percent_decode_str;

/// Variables that may hold secrets: they are taken out of the environment with the others.
pub const HEADER_VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

/// What the variables say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtelEnv {
    /// Whether there are to be no spans, whatever else is said.
    pub off: Option<&'static str>,
    /// The whole URL that spans go to.
    pub endpoint: Option<String>,
    /// The protocol, and the variable that names it.
    pub protocol: Option<(&'static str, String)>,
    /// How long a request may take.
    pub timeout: Option<Duration>,
    /// How requests are compressed.
    pub compression: Option<EnvCompression>,
    /// A PEM file with authorities.
    pub certificate: Option<String>,
    /// A PEM file with a client certificate.
    pub client_certificate: Option<String>,
    /// A PEM file with its key.
    pub client_key: Option<String>,
    /// The service's name.
    pub service_name: Option<String>,
    /// More attributes of the resource.
    pub resource: Vec<(String, String)>,
    /// Which exchanges become spans.
    pub sampler: Option<EnvSampler>,
    /// Spans that may wait.
    pub queue: Option<usize>,
    /// The most spans of a batch.
    pub batch: Option<usize>,
    /// How long a batch gathers.
    pub delay: Option<Duration>,
    /// How long a batch may take to be sent.
    pub patience: Option<Duration>,
    /// What could not be used.
    pub notes: Vec<String>,
}

/// `OTEL_EXPORTER_OTLP_COMPRESSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvCompression {
    /// `none`.
    None,
    /// `gzip`.
    Gzip,
}

/// `OTEL_TRACES_SAMPLER` with its argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnvSampler {
    /// Whether an agent's own decision counts: `parentbased_…`.
    pub follows: Follows,
    /// The part that is taken otherwise: 0 for `always_off`, 1 for `always_on`.
    pub ratio: f64,
}

/// Whether an agent's own decision counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It does.
    Parent,
    /// It does not.
    Nobody,
}

impl OtelEnv {
    /// What this process's environment says.
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads variables; an empty one is none.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let mut reader = Reader {
            get: Box::new(move |name| get(name).filter(|value| !value.trim().is_empty())),
            notes: Vec::new(),
        };
        let mut env = Self {
            off: reader.off(),
            endpoint: reader.endpoint(),
            protocol: reader.first([
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                "OTEL_EXPORTER_OTLP_PROTOCOL",
            ]),
            timeout: reader.millis_of(&[
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
                "OTEL_EXPORTER_OTLP_TIMEOUT",
            ]),
            compression: reader.compression(),
            certificate: reader.file("CERTIFICATE"),
            client_certificate: reader.file("CLIENT_CERTIFICATE"),
            client_key: reader.file("CLIENT_KEY"),
            service_name: reader.text("OTEL_SERVICE_NAME"),
            resource: reader.resource(),
            sampler: reader.sampler(),
            queue: reader.count("OTEL_BSP_MAX_QUEUE_SIZE"),
            batch: reader.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
            delay: reader.millis_of(&["OTEL_BSP_SCHEDULE_DELAY"]),
            patience: reader.millis_of(&["OTEL_BSP_EXPORT_TIMEOUT"]),
            notes: Vec::new(),
        };
        env.notes = reader.notes;
        env
    }
}

/// Pairs as `OTEL_EXPORTER_OTLP_HEADERS` has them: `name=value,name=value`, values percent-encoded. Nothing where
/// a pair is none; what it was is not told, since it may be a secret.
pub fn header_pairs(text: &str) -> Option<Vec<(String, String)>> {
    pairs(text)
}

fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for pair in text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = name.trim();
        if name.is_empty() {
            return None;
        }
        found.push((name.to_owned(), value.into_owned()));
    }
    Some(found)
}

/// The value of a variable by its name.
type Variables<'g> = Box<dyn Fn(&str) -> Option<String> + 'g>;

struct Reader<'g> {
    get: Variables<'g>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned())
    }

    fn first<const N: usize>(&self, names: [&'static str; N]) -> Option<(&'static str, String)> {
        names
            .into_iter()
            .find_map(|name| Some((name, self.text(name)?)))
    }

    fn off(&mut self) -> Option<&'static str> {
        // Only this word means it; anything else is false.
        let is_true = |value: String| value.eq_ignore_ascii_case("true");
        if self.text("OTEL_SDK_DISABLED").is_some_and(is_true) {
            return Some("OTEL_SDK_DISABLED");
        }
        let exporters = self.text("OTEL_TRACES_EXPORTER")?;
        let mut words = exporters.split(',').map(str::trim);
        if words.clone().any(|word| word == "otlp") {
            return None;
        }
        if !words.all(|word| word == "none") {
            let note = "OTEL_TRACES_EXPORTER names none that is here; `otlp` and `none` are";
            self.notes.push(note.to_owned());
        }
        Some("OTEL_TRACES_EXPORTER")
    }

    /// The signal's own variable is the whole URL, the general one its base.
    fn endpoint(&self) -> Option<String> {
        self.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| {
            let base = self.text("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        })
    }

    fn file(&self, what: &str) -> Option<String> {
        let own = format!("OTEL_EXPORTER_OTLP_TRACES_{what}");
        let general = format!("OTEL_EXPORTER_OTLP_{what}");
        self.text(&own).or_else(|| self.text(&general))
    }

    fn compression(&mut self) -> Option<EnvCompression> {
        let (name, value) = self.first([
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ])?;
        match value.as_str() {
            "gzip" => Some(EnvCompression::Gzip),
            "none" => Some(EnvCompression::None),
            _ => self.note(name, "`gzip` or `none`"),
        }
    }

    fn millis_of(&mut self, names: &[&'static str]) -> Option<Duration> {
        let name = names.iter().find(|name| self.text(name).is_some())?;
        match self.text(name)?.parse() {
            Ok(millis) => Some(Duration::from_millis(millis)),
            Err(_) => self.note(name, "a whole number of milliseconds"),
        }
    }

    fn count(&mut self, name: &'static str) -> Option<usize> {
        match self.text(name)?.parse() {
            Ok(count @ 1..=1_000_000) => Some(count),
            _ => self.note(name, "a whole number from 1 to 1000000"),
        }
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(text) = self.text(NAME) else {
            return Vec::new();
        };
        match pairs(&text) {
            Some(pairs) => pairs,
            // The specification drops all of them then.
            None => self
                .note(NAME, "`key=value,key=value`, values percent-encoded")
                .unwrap_or_default(),
        }
    }

    fn sampler(&mut self) -> Option<EnvSampler> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let word = self.text(NAME)?;
        let (follows, root) = match word.strip_prefix("parentbased_") {
            Some(root) => (Follows::Parent, root),
            None => (Follows::Nobody, word.as_str()),
        };
        let ratio = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => self.ratio().unwrap_or(1.0),
            _ => {
                return self.note(
                    NAME,
                    "`always_on`, `always_off` or `traceidratio`, or one of these behind `parentbased_`",
                );
            }
        };
        Some(EnvSampler { follows, ratio })
    }

    fn ratio(&mut self) -> Option<f64> {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        match self.text(NAME)?.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Some(ratio),
            _ => self.note(NAME, "a number from 0 to 1"),
        }
    }

    fn note<T>(&mut self, name: &str, wanted: &str) -> Option<T> {
        self.notes
            .push(format!("{name} is not used: write {wanted}"));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[(&str, &str)]) -> OtelEnv {
        OtelEnv::read(|name| {
            let mut found = variables.iter().filter(|(known, _)| *known == name);
            found.next().map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_variables_nothing_is_said() {
        assert_eq!(env(&[]), OtelEnv::default());
        assert_eq!(
            env(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]),
            OtelEnv::default()
        );
    }

    #[test]
    fn the_variable_of_the_signal_goes_before_the_general_one() {
        const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        const OWN: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x");
        assert_eq!(
            env(&[BASE]).endpoint.as_deref(),
            Some("http://c:4318/v1/traces")
        );
        assert_eq!(env(&[BASE, OWN]).endpoint.as_deref(), Some("http://t:1/x"));
        for (what, read) in [
            (
                "CERTIFICATE",
                (|e| e.certificate) as fn(OtelEnv) -> Option<String>,
            ),
            ("CLIENT_CERTIFICATE", |e| e.client_certificate),
            ("CLIENT_KEY", |e| e.client_key),
        ] {
            let general = format!("OTEL_EXPORTER_OTLP_{what}");
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{what}");
            assert_eq!(read(env(&[(&general, "a")])).as_deref(), Some("a"));
            assert_eq!(
                read(env(&[(&general, "a"), (&own, "b")])).as_deref(),
                Some("b")
            );
        }
        let timeouts = [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
        ];
        assert_eq!(env(&timeouts[..1]).timeout, Some(Duration::from_secs(1)));
        assert_eq!(env(&timeouts).timeout, Some(Duration::from_secs(2)));
        let protocol = env(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).protocol;
        assert_eq!(
            protocol,
            Some(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()))
        );
    }

    #[test]
    fn traces_are_switched_off_by_either_variable() {
        for (name, value, off) in [
            ("OTEL_SDK_DISABLED", "true", true),
            ("OTEL_SDK_DISABLED", "TRUE", true),
            ("OTEL_SDK_DISABLED", "1", false),
            ("OTEL_SDK_DISABLED", "false", false),
            ("OTEL_TRACES_EXPORTER", "none", true),
            ("OTEL_TRACES_EXPORTER", "otlp", false),
            ("OTEL_TRACES_EXPORTER", "console, otlp", false),
        ] {
            let read = env(&[(name, value)]);
            assert_eq!(read.off, off.then_some(name), "{name}={value}");
            assert!(read.notes.is_empty());
        }
        let zipkin = env(&[("OTEL_TRACES_EXPORTER", "zipkin")]);
        assert!(zipkin.off.is_some() && zipkin.notes[0].contains("`otlp`"));
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        let sampler = |word: &str, argument: &str| {
            let read = env(&[
                ("OTEL_TRACES_SAMPLER", word),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ]);
            (read.sampler.map(|s| (s.follows, s.ratio)), read.notes.len())
        };
        for (word, argument, expected) in [
            ("always_on", "", (Some((Follows::Nobody, 1.0)), 0)),
            ("always_off", "", (Some((Follows::Nobody, 0.0)), 0)),
            ("traceidratio", "0.25", (Some((Follows::Nobody, 0.25)), 0)),
            ("traceidratio", "", (Some((Follows::Nobody, 1.0)), 0)),
            ("traceidratio", "2", (Some((Follows::Nobody, 1.0)), 1)),
            (
                "parentbased_always_on",
                "",
                (Some((Follows::Parent, 1.0)), 0),
            ),
            (
                "parentbased_always_off",
                "",
                (Some((Follows::Parent, 0.0)), 0),
            ),
            (
                "parentbased_traceidratio",
                "0.5",
                (Some((Follows::Parent, 0.5)), 0),
            ),
            ("jaeger_remote", "", (None, 1)),
        ] {
            assert_eq!(sampler(word, argument), expected, "{word} {argument}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_noted_and_counts_as_absent() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "x"),
        ] {
            let mut read = env(&[(name, value)]);
            assert!(read.notes.remove(0).starts_with(name), "{name}");
            assert_eq!(read, OtelEnv::default(), "{name}");
        }
    }

    #[test]
    fn pairs_are_percent_decoded() {
        let read = env(&[("OTEL_RESOURCE_ATTRIBUTES", "a=1, b=x%2Cy ,,c=")]);
        let expected = [("a", "1"), ("b", "x,y"), ("c", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(read.resource, expected);
        assert_eq!(
            header_pairs("authorization=Bearer%20abc"),
            Some(vec![("authorization".to_owned(), "Bearer abc".to_owned())])
        );
        assert_eq!(header_pairs("no pair"), None);
    }
}

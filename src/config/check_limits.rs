//! Owns what is wrong with a limit: one that would keep nothing, or stop everything.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ConfigError, SourceFile};
use super::limits::LimitsSpec;
use super::located::Located;
use super::spot;
use super::units::{Size, Span};
use crate::types::limits::Limits;
use crate::types::reached::Amount;

/// Finds limits that would keep the proxy from working, or keep nothing.
pub(super) fn check_limits(
    spec: &LimitsSpec,
    file: &Arc<SourceFile>,
    errors: &mut Vec<ConfigError>,
) {
    let mut check = Check { file, errors };
    let (connections, requests) = (&spec.connections, &spec.requests);
    let most = 1..=1_000_000;
    check.count("connections.total", &connections.total, most.clone());
    check.count("connections.perAgent", &connections.per_agent, most.clone());
    check.count(
        "connections.unidentifiedPerAddress",
        &connections.unidentified_per_address,
        most.clone(),
    );
    let day = Duration::from_secs(86400);
    let short = Duration::from_millis(100);
    check.time("connections.idle", &connections.idle, short..=day);
    check.time("connections.ping", &connections.ping, short..=day);
    check.time(
        "connections.tunnelStart",
        &connections.tunnel_start,
        short..=day,
    );
    check.time("connections.handshake", &connections.handshake, short..=day);
    // The library wants room for 8 KiB, and a head is in memory as a whole.
    check.size("requests.headSize", &requests.head_size, 8 << 10..=1 << 20);
    check.count("requests.headFields", &requests.head_fields, 10..=1000);
    check.time("requests.headTime", &requests.head_time, short..=day);
    check.time("requests.bodyIdle", &requests.body_idle, short..=day);
    check.count(
        "streams.perConnection",
        &spec.streams.per_connection,
        1..=1000,
    );
    check.count("streams.perAgent", &spec.streams.per_agent, most.clone());
    check.count("streams.total", &spec.streams.total, most.clone());
    let memory = 1 << 20..=1 << 40;
    check.size("bodies.kept", &spec.bodies.kept, 0..=1 << 40);
    check.size("bodies.read", &spec.bodies.read, memory.clone());
    check.size(
        "bodies.readPerAgent",
        &spec.bodies.read_per_agent,
        memory.clone(),
    );
    // One window of the largest kind must fit.
    check.size("answers.windows", &spec.answers.windows, 32 << 20..=1 << 40);
    check.size("answers.read", &spec.answers.read, memory);
    check.size(
        "answers.webSocketFrame",
        &spec.answers.web_socket_frame,
        1 << 10..=1 << 40,
    );
    check.count("origins.idle", &spec.origins.idle, most.clone());
    check.count("origins.idlePerHost", &spec.origins.idle_per_host, most);
    // As of requests: 8 KiB, and as a whole.
    check.size(
        "origins.headSize",
        &spec.origins.head_size,
        8 << 10..=1 << 20,
    );
    check.count("origins.headFields", &spec.origins.head_fields, 10..=1000);
    check.time("origins.ping", &spec.origins.ping, short..=day);
    check.count("leaves.cached", &spec.leaves.cached, 16..=1_000_000);
    check.count("dns.answers", &spec.dns.answers, 1..=1000);
    check.count("dns.lookups", &spec.dns.lookups, 1..=10_000);
    let minute = Duration::from_secs(60);
    check.time("dns.timeout", &spec.dns.timeout, short..=minute);
    check.parts(spec);
}

struct Check<'a> {
    file: &'a Arc<SourceFile>,
    errors: &'a mut Vec<ConfigError>,
}

impl Check<'_> {
    fn count(&mut self, name: &str, written: &Option<Located<u32>>, within: RangeInclusive<u32>) {
        let shown = |count: &u32| Amount::Count(u64::from(*count));
        self.within(
            name,
            written,
            written.as_ref().map(|w| w.value),
            within,
            shown,
        );
    }

    fn size(&mut self, name: &str, written: &Option<Located<Size>>, within: RangeInclusive<u64>) {
        let shown = |bytes: &u64| Amount::Bytes(*bytes);
        self.within(
            name,
            written,
            written.as_ref().map(|w| w.value.0),
            within,
            shown,
        );
    }

    fn time(
        &mut self,
        name: &str,
        written: &Option<Located<Span>>,
        within: RangeInclusive<Duration>,
    ) {
        let shown = |time: &Duration| Amount::Time(*time);
        self.within(
            name,
            written,
            written.as_ref().map(|w| w.value.0),
            within,
            shown,
        );
    }

    /// A part that is larger than the whole keeps nothing: whoever wrote it takes it for a limit.
    fn parts(&mut self, spec: &LimitsSpec) {
        let usual = Limits::default();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let whole = |written: &Option<Located<u32>>, usual: usize| {
            written.as_ref().map_or(number(usual), |w| w.value)
        };
        let connections = whole(&spec.connections.total, usual.connections.total);
        let streams = whole(&spec.streams.total, usual.streams.total);
        let counts = [
            ("connections.perAgent", &spec.connections.per_agent),
            (
                "connections.unidentifiedPerAddress",
                &spec.connections.unidentified_per_address,
            ),
        ];
        let shown = |count: &u32| Amount::Count(u64::from(*count));
        for (name, written) in counts {
            let value = written.as_ref().map(|w| w.value);
            self.part(
                name,
                written,
                value,
                ("connections.total", connections),
                shown,
            );
        }
        let written = &spec.streams.per_agent;
        let value = written.as_ref().map(|w| w.value);
        self.part(
            "streams.perAgent",
            written,
            value,
            ("streams.total", streams),
            shown,
        );
        let read = spec.bodies.read.as_ref();
        let read = read.map_or(usual.bodies.read, |w| w.value.0);
        let written = &spec.bodies.read_per_agent;
        let value = written.as_ref().map(|w| w.value.0);
        let shown = |bytes: &u64| Amount::Bytes(*bytes);
        self.part(
            "bodies.readPerAgent",
            written,
            value,
            ("bodies.read", read),
            shown,
        );
    }

    fn part<W, T: PartialOrd>(
        &mut self,
        name: &str,
        written: &Option<Located<W>>,
        value: Option<T>,
        (of, whole): (&str, T),
        shown: impl Fn(&T) -> Amount,
    ) {
        let (Some(written), Some(value)) = (written, value) else {
            return;
        };
        if value <= whole {
            return;
        }
        let message = format!(
            "`limits.{name}` is {}, more than `limits.{of}`, which is {}",
            shown(&value),
            shown(&whole)
        );
        let error = ConfigError::new("TG0214", message).help(format!(
            "write at most {}, or raise `limits.{of}`",
            shown(&whole)
        ));
        self.errors.push(spot::at(error, self.file, written));
    }

    fn within<W, T: PartialOrd>(
        &mut self,
        name: &str,
        written: &Option<Located<W>>,
        value: Option<T>,
        within: RangeInclusive<T>,
        shown: impl Fn(&T) -> Amount,
    ) {
        let (Some(written), Some(value)) = (written, value) else {
            return;
        };
        if within.contains(&value) {
            return;
        }
        let message = format!("`limits.{name}` is {}", shown(&value));
        let error = ConfigError::new("TG0213", message).help(format!(
            "write {} to {}, or remove it for the default",
            shown(within.start()),
            shown(within.end())
        ));
        self.errors.push(spot::at(error, self.file, written));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(yaml: &str) -> Vec<String> {
        let file = Arc::new(SourceFile {
            name: "t".to_owned(),
            text: yaml.to_owned(),
        });
        let mut errors = Vec::new();
        let spec = serde_saphyr::from_str(yaml).unwrap();
        check_limits(&spec, &file, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_would_keep_nothing_or_stop_everything_is_told() {
        assert!(complaints("{}").is_empty());
        // A part that nobody wrote follows its whole.
        assert!(complaints("connections: {total: 10}\nbodies: {read: 1MiB}").is_empty());
        assert!(complaints("connections: {total: 10, perAgent: 10}").is_empty());
        for (yaml, said) in [
            ("connections: {total: 0}", "`limits.connections.total` is 0"),
            ("connections: {idle: 1ms}", "is 1ms"),
            ("requests: {headSize: 1KiB}", "is 1 KiB"),
            ("requests: {headSize: 1GiB}", "is 1 GiB"),
            ("requests: {headFields: 5000}", "is 5000"),
            ("streams: {perConnection: 100000}", "is 100000"),
            ("bodies: {read: 1KiB}", "is 1 KiB"),
            ("answers: {windows: 1MiB}", "is 1 MiB"),
            ("answers: {read: 1KiB}", "is 1 KiB"),
            ("leaves: {cached: 0}", "is 0"),
            ("dns: {timeout: 1h}", "is 3600s"),
            ("origins: {headSize: 1KiB}", "is 1 KiB"),
            ("origins: {headFields: 1}", "is 1"),
            (
                "connections: {ping: 1ms}",
                "`limits.connections.ping` is 1ms",
            ),
            ("origins: {ping: 25h}", "`limits.origins.ping` is 90000s"),
            (
                "connections: {total: 10, perAgent: 11}",
                "`limits.connections.perAgent` is 11, more than `limits.connections.total`, which is 10",
            ),
            ("connections: {perAgent: 20000}", "which is 16384"),
            (
                "connections: {total: 10, unidentifiedPerAddress: 11}",
                "`limits.connections.unidentifiedPerAddress` is 11, more than",
            ),
            ("streams: {total: 5, perAgent: 6}", "which is 5"),
            (
                "bodies: {read: 2MiB, readPerAgent: 3MiB}",
                "`limits.bodies.readPerAgent` is 3 MiB, more than `limits.bodies.read`, which is 2 MiB",
            ),
        ] {
            let told = complaints(yaml);
            assert!(
                told.len() == 1 && told[0].contains(said),
                "{yaml}: {told:?}"
            );
        }
    }
}

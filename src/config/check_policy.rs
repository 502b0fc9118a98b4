//! Owns what is wrong with a policy that is well formed: hosts, methods and paths that name nothing.

use std::sync::Arc;

use super::bundle::Document;
use super::error::{ConfigError, SourceFile};
use super::literal::shown;
use super::located::Located;
use super::policy::{EgressPolicySpec, EgressRuleSpec, HttpMatchSpec, TlsMode};
use super::spot;
use super::suggest::closest;
use crate::types::host::HostPattern;

/// Every mistake in the rules of `policy`.
pub(super) fn check_policy(policy: &Document<EgressPolicySpec>, errors: &mut Vec<ConfigError>) {
    let file = &policy.file;
    for rule in &policy.spec.egress {
        // Left over only where its preset could not be resolved, which has been said.
        if rule.preset.is_some() {
            continue;
        }
        check_hosts(rule, file, errors);
        check_ports(&rule.ports, file, errors);
        check_tls(rule, file, errors);
        for http in &rule.http {
            check_http(http, file, errors);
        }
    }
}

fn check_hosts(
    rule: &Located<EgressRuleSpec>,
    file: &Arc<SourceFile>,
    errors: &mut Vec<ConfigError>,
) {
    if rule.hosts.is_empty() {
        let error = ConfigError::new("TG0303", "a rule names no host")
            .help("add `hosts: [api.example.com]`, or `preset: NAME`");
        errors.push(spot::at(error, file, rule));
    }
    for host in &rule.hosts {
        errors.extend(host_error(host, file));
    }
    let Some(route) = &rule.route else {
        return;
    };
    let exact = matches!(
        rule.hosts.as_slice(),
        [host] if matches!(HostPattern::parse(host), Ok(HostPattern::Exact(_)) | Err(_))
    );
    if !exact {
        let error = ConfigError::new("TG0309", "a rule with `route` wants exactly one exact host")
            .help("write a rule of its own for the host that the route leads to");
        errors.push(spot::at(error, file, route));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if route.is_empty() || !route.bytes().all(plain) {
        let error = ConfigError::new("TG0309", format!("`{}` is not a route", shown(route)))
            .help("a route is one path segment of letters, digits, `-` and `_`");
        errors.push(spot::at(error, file, route));
    }
}

/// What is wrong with a host, if anything is.
pub(super) fn host_error(host: &Located<String>, file: &Arc<SourceFile>) -> Option<ConfigError> {
    let reason = HostPattern::parse(host).err()?;
    let error = ConfigError::new(
        "TG0304",
        format!("`{}` is not a host: {reason}", shown(host)),
    )
    .help("write `api.example.com`, `*.example.com` or an IP address");
    Some(spot::at(error, file, host))
}

/// Port 0 is never one to connect to.
pub(super) fn check_ports(
    ports: &[Located<u16>],
    file: &Arc<SourceFile>,
    errors: &mut Vec<ConfigError>,
) {
    for port in ports.iter().filter(|port| port.value == 0) {
        let error =
            ConfigError::new("TG0308", "0 is not a port").help("write a number from 1 to 65535");
        errors.push(spot::at(error, file, port));
    }
}

fn check_tls(
    rule: &Located<EgressRuleSpec>,
    file: &Arc<SourceFile>,
    errors: &mut Vec<ConfigError>,
) {
    let reads = !rule.http.is_empty() || !rule.credentials.is_empty();
    if rule.tls == TlsMode::Passthrough && reads {
        let error = ConfigError::new(
            "TG0310",
            "a rule with `tls: Passthrough` cannot look at requests or add credentials",
        )
        .help("remove `http` and `credentials`, or write `tls: Intercept`");
        errors.push(spot::at(error, file, rule));
    }
}

fn check_http(http: &HttpMatchSpec, file: &Arc<SourceFile>, errors: &mut Vec<ConfigError>) {
    for method in &http.methods {
        if let Some(error) = method_error(method) {
            errors.push(spot::at(error, file, method));
        }
    }
    for path in http.paths.iter().filter(|path| !path.starts_with('/')) {
        let error = ConfigError::new(
            "TG0306",
            format!("path `{}` has no `/` in front", shown(path)),
        )
        .help("write `/v1/messages`, `/v1/*` or `/v1/**`");
        errors.push(spot::at(error, file, path));
    }
}

/// The methods of RFC 9110, section 9, and RFC 5789.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

/// What is wrong with a method, if anything is.
pub(super) fn method_error(method: &str) -> Option<ConfigError> {
    let upper = method.to_ascii_uppercase();
    let token = http::Method::from_bytes(method.as_bytes()).is_ok();
    if token && upper == method {
        return None;
    }
    let error = ConfigError::new("TG0305", format!("`{}` is not a method", shown(method)))
        .help("methods are written in capitals (RFC 9110, section 9.1), for example GET, POST");
    Some(match closest(&upper, METHODS) {
        Some(guess) => error.label(format!("did you mean {guess}?")),
        None => error,
    })
}

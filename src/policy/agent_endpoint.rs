//! Owns the check that an agent can reach the token endpoints that are answered for it: one that no
//! rule allows would be refused before anybody looks at it.

use http::Method;

use crate::config::bundle::{Bundle, Document};
use crate::config::credential::EgressCredentialSpec;
use crate::config::error::ConfigError;
use crate::config::located::Located;
use crate::config::source::SourceSpec;
use crate::config::url::{EndpointUrl, secure_url};
use crate::types::host::HostPattern;

use super::engine::Engine;

/// An error for each of the `agentEndpoints` that no rule with its credential allows.
pub(super) fn unreachable(engine: &Engine, bundle: &Bundle) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for credential in &bundle.credentials {
        let source = credential.spec.source.as_ref().map(|source| &source.value);
        let Some(SourceSpec::Oauth(oauth)) = source else {
            continue;
        };
        for url in &oauth.agent_endpoints {
            // What is no URL has been said where documents are checked.
            if let Ok(endpoint) = secure_url(url)
                && !is_allowed(engine, &credential.name, &endpoint)
            {
                errors.push(refused(credential, url, &endpoint));
            }
        }
    }
    errors
}

/// Whether some agent may send it a POST, the credential applying. Rules that narrower ones hide count:
/// this finds what was forgotten, not what was meant otherwise.
fn is_allowed(engine: &Engine, credential: &str, endpoint: &EndpointUrl<'_>) -> bool {
    let path = endpoint.path.as_bytes();
    engine
        .matching(&endpoint.authority.host)
        .flat_map(|host| &host.rules)
        .filter(|rule| rule.allows() && rule.ports.contains(&endpoint.authority.port))
        .filter(|rule| rule.credentials.iter().any(|name| **name == *credential))
        .flat_map(|rule| &rule.requests)
        .any(|request| request.admits(&Method::POST) && request.path.matches(path))
}

fn refused(
    credential: &Document<EgressCredentialSpec>,
    url: &Located<String>,
    endpoint: &EndpointUrl<'_>,
) -> ConfigError {
    let (name, host) = (&credential.name, &endpoint.authority.host);
    let ports = match endpoint.authority.port {
        443 => String::new(),
        port => format!(", ports: [{port}]"),
    };
    let rule = format!(
        "`- {{ hosts: [\"{host}\"]{ports}, http: [{{ methods: [POST], paths: [\"{}\"] }}], credentials: [{name}] }}`",
        endpoint.path
    );
    let named = credential
        .spec
        .hosts
        .iter()
        .filter_map(|pattern| HostPattern::parse(pattern).ok())
        .any(|pattern| pattern.matches(host));
    let besides = match named {
        true => String::new(),
        false => format!(", and `{host}` to the `hosts` of this credential"),
    };
    ConfigError::new(
        "TG0512",
        format!("no rule lets agents ask `{host}` with the credential `{name}`"),
    )
    .at(credential.place(url, url.len()))
    .label("agents are refused before this is answered")
    .help(format!("add {rule} to a policy{besides}"))
}

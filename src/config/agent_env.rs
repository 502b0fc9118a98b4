//! Owns the variables that make an agent's programs use the proxy, trust its authority, and hold
//! placeholders instead of secrets.

use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::types::host::{Authority, Host};
use crate::types::secret::Secret;

/// Where the proxy is, as the agent sees it.
#[derive(Debug)]
pub struct ProxyAddress {
    /// The host and port that the agent connects to.
    pub address: Authority,
    /// How the agent names itself, if it must.
    pub login: Option<ProxyLogin>,
    /// PEM file with the proxy's authority alone.
    pub ca: PathBuf,
    /// PEM file with the system's roots and the proxy's authority.
    pub bundle: PathBuf,
    /// The same as a PKCS#12 file for Java, if there is one.
    pub java_trust_store: Option<JavaTrustStore>,
}

/// An agent's name and token.
#[derive(Debug)]
pub struct ProxyLogin {
    /// The agent's name.
    pub user: String,
    /// Its token.
    pub token: Secret,
}

/// A PKCS#12 file; its password protects nothing but is asked for.
#[derive(Debug)]
pub struct JavaTrustStore {
    /// The file.
    pub path: PathBuf,
    /// Its password.
    pub password: String,
}

/// For whom the variables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvFormat {
    /// `export NAME='value'` for a POSIX shell.
    Sh,
    /// `NAME=value` for `.env` files.
    Dotenv,
    /// The items of a container's `env` list.
    K8s,
    /// `ENV NAME="value"`.
    Dockerfile,
}

/// Variables for an agent's environment. There is no `Debug`: the proxy's URL may hold a token.
pub struct AgentEnvironment {
    /// Names and values, in the order in which they are printed.
    pub variables: Vec<(String, String)>,
}

/// What RFC 3986, section 2.3 leaves as it is.
const USERINFO: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Only what is never on the other side of the proxy: a wider list would let allowed hosts bypass it.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

impl AgentEnvironment {
    /// The variables for a proxy, and for placeholders with the names that each goes by.
    pub fn new(proxy: &ProxyAddress, placeholders: &[(Vec<String>, String)]) -> Self {
        let url = proxy_url(proxy);
        let ca = proxy.ca.display().to_string();
        let bundle = proxy.bundle.display().to_string();
        let java = java_options(proxy);
        let settings = [
            ("HTTPS_PROXY", url.as_str()),
            ("https_proxy", &url),
            ("HTTP_PROXY", &url),
            ("http_proxy", &url),
            ("NO_PROXY", NO_PROXY),
            ("no_proxy", NO_PROXY),
            // Node 22 and later look at the variables above only with this.
            ("NODE_USE_ENV_PROXY", "1"),
            // These two add to a runtime's own roots, the others replace them.
            ("NODE_EXTRA_CA_CERTS", &ca),
            ("DENO_CERT", &ca),
            ("SSL_CERT_FILE", &bundle),
            ("REQUESTS_CA_BUNDLE", &bundle),
            ("CURL_CA_BUNDLE", &bundle),
            ("GIT_SSL_CAINFO", &bundle),
            ("PIP_CERT", &bundle),
            ("AWS_CA_BUNDLE", &bundle),
            ("CARGO_HTTP_CAINFO", &bundle),
            ("JAVA_TOOL_OPTIONS", &java),
        ];
        let mut variables: Vec<(String, String)> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (names, placeholder) in placeholders {
            for name in names {
                if variables.iter().all(|(taken, _)| taken != name) {
                    variables.push((name.clone(), placeholder.clone()));
                }
            }
        }
        Self { variables }
    }

    /// The variables as text for `format`, one a line, ready to be evaluated or pasted.
    pub fn render(&self, format: EnvFormat) -> String {
        let lines = self.variables.iter().map(|(name, value)| match format {
            EnvFormat::Sh => format!("export {name}={}\n", sh_quoted(value)),
            EnvFormat::Dotenv => format!("{name}={}\n", dotenv_quoted(value)),
            EnvFormat::K8s => format!("- name: {name}\n  value: {}\n", k8s_quoted(value)),
            EnvFormat::Dockerfile => format!("ENV {name}={}\n", double_quoted(value)),
        });
        lines.collect()
    }
}

fn proxy_url(proxy: &ProxyAddress) -> String {
    let login = proxy.login.as_ref().map_or_else(String::new, |login| {
        let user = utf8_percent_encode(&login.user, USERINFO);
        let token = percent_encoding::percent_encode(login.token.expose(), USERINFO);
        format!("{user}:{token}@")
    });
    format!("http://{login}{}", proxy.address)
}

/// Java knows none of the variables, and takes no user and password.
fn java_options(proxy: &ProxyAddress) -> String {
    let port = proxy.address.port;
    let host = match &proxy.address.host {
        Host::Name(name) => name.to_string(),
        // Without the brackets of a URL.
        Host::Ip(ip) => ip.to_string(),
    };
    let mut options = format!(
        "-Dhttps.proxyHost={host} -Dhttps.proxyPort={port} \
         -Dhttp.proxyHost={host} -Dhttp.proxyPort={port}"
    );
    if let Some(store) = &proxy.java_trust_store {
        let path = store.path.display();
        let password = &store.password;
        options.push_str(&format!(
            " -Djavax.net.ssl.trustStore={path} -Djavax.net.ssl.trustStoreType=PKCS12 \
             -Djavax.net.ssl.trustStorePassword={password}"
        ));
    }
    options
}

/// Within single quotes a shell changes nothing.
fn sh_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Docker takes quotes as part of the value, other readers need them around blanks and `#`: so they
/// are there only where they must be.
fn dotenv_quoted(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/@%+,[]=".contains(&b);
    match value.bytes().all(plain) {
        true => value.to_owned(),
        false => double_quoted(value),
    }
}

fn double_quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A JSON string is a YAML string. `$$` keeps Kubernetes from expanding `$(NAME)`.
fn k8s_quoted(value: &str) -> String {
    serde_json::Value::from(value.replace("$(", "$$(")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> ProxyAddress {
        ProxyAddress {
            address: Authority::parse("127.0.0.1:8888", None).unwrap(),
            login: None,
            ca: "/run/tollgate/ca.crt".into(),
            bundle: "/run/tollgate/bundle.crt".into(),
            java_trust_store: None,
        }
    }

    fn value<'a>(environment: &'a AgentEnvironment, name: &str) -> &'a str {
        let found = environment.variables.iter().find(|(n, _)| n == name);
        &found.unwrap().1
    }

    #[test]
    fn every_runtime_gets_its_variables() {
        let placeholders = [
            (
                vec!["GH_TOKEN".into(), "GITHUB_TOKEN".into()],
                "ghp_x".into(),
            ),
            (
                vec!["GH_TOKEN".into(), "HTTPS_PROXY".into()],
                "other".into(),
            ),
        ];
        let environment = AgentEnvironment::new(&proxy(), &placeholders);
        let names: Vec<&str> = environment.variables.iter().map(|(n, _)| &**n).collect();
        let expected = "HTTPS_PROXY https_proxy HTTP_PROXY http_proxy NO_PROXY no_proxy \
            NODE_USE_ENV_PROXY NODE_EXTRA_CA_CERTS DENO_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE \
            CURL_CA_BUNDLE GIT_SSL_CAINFO PIP_CERT AWS_CA_BUNDLE CARGO_HTTP_CAINFO \
            JAVA_TOOL_OPTIONS GH_TOKEN GITHUB_TOKEN";
        assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
        assert_eq!(value(&environment, "https_proxy"), "http://127.0.0.1:8888");
        assert_eq!(value(&environment, "DENO_CERT"), "/run/tollgate/ca.crt");
        assert_eq!(value(&environment, "PIP_CERT"), "/run/tollgate/bundle.crt");
        assert_eq!(value(&environment, "GH_TOKEN"), "ghp_x");
        assert_eq!(value(&environment, "HTTPS_PROXY"), "http://127.0.0.1:8888");
    }

    #[test]
    fn a_login_is_escaped_into_the_url() {
        let environment = AgentEnvironment::new(
            &ProxyAddress {
                address: Authority::parse("[::1]:8888", None).unwrap(),
                login: Some(ProxyLogin {
                    user: "team-a/scan".into(),
                    token: Secret::from("a@b:c".to_owned()),
                }),
                ..proxy()
            },
            &[],
        );
        assert_eq!(
            value(&environment, "HTTP_PROXY"),
            "http://team-a%2Fscan:a%40b%3Ac@[::1]:8888"
        );
    }

    #[test]
    fn java_gets_its_trust_store_as_options() {
        let environment = AgentEnvironment::new(
            &ProxyAddress {
                java_trust_store: Some(JavaTrustStore {
                    path: "/run/tollgate/trust.p12".into(),
                    password: "changeit".into(),
                }),
                ..proxy()
            },
            &[],
        );
        assert_eq!(
            value(&environment, "JAVA_TOOL_OPTIONS"),
            "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8888 \
             -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=8888 \
             -Djavax.net.ssl.trustStore=/run/tollgate/trust.p12 \
             -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
        );
    }

    #[test]
    fn values_arrive_as_they_are_in_every_format() {
        let environment = AgentEnvironment {
            variables: vec![
                ("A".into(), "http://u:t@h:1".into()),
                ("B".into(), "it's $(x) \"y\" #z".into()),
            ],
        };
        let table = [
            (
                EnvFormat::Sh,
                "export A='http://u:t@h:1'\nexport B='it'\\''s $(x) \"y\" #z'\n",
            ),
            (
                EnvFormat::Dotenv,
                "A=http://u:t@h:1\nB=\"it's \\$(x) \\\"y\\\" #z\"\n",
            ),
            (
                EnvFormat::K8s,
                "- name: A\n  value: \"http://u:t@h:1\"\n- name: B\n  value: \"it's $$(x) \\\"y\\\" #z\"\n",
            ),
            (
                EnvFormat::Dockerfile,
                "ENV A=\"http://u:t@h:1\"\nENV B=\"it's \\$(x) \\\"y\\\" #z\"\n",
            ),
        ];
        for (format, text) in table {
            assert_eq!(environment.render(format), text, "{format:?}");
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let wild = "a'b\"c$(echo x)`echo y`\\ \n*?~#;&|";
        let environment = AgentEnvironment {
            variables: vec![("WILD".into(), wild.into())],
        };
        let script = format!("{}printf %s \"$WILD\"", environment.render(EnvFormat::Sh));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), wild);
    }
}

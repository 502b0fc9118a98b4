//! Owns what is wrong with a credential that is well formed: parts that are missing, and placements
//! and placeholders that could never work.

use http::HeaderName;

use super::bundle::Document;
use super::check_oauth::check_oauth;
use super::check_policy::{check_ports, host_error};
use super::check_source::{is_variable, pointer_error, source_error};
use super::credential::{EgressCredentialSpec, PlaceholderSpec, PlacementSpec, RequestHeaderSpec};
use super::error::ConfigError;
use super::literal::shown;
use super::located::Located;
use super::shape::Shape;
use super::source::{GrantSpec, SourceSpec};
use super::spot;

/// Every mistake in `credential`, presets being resolved.
pub(super) fn check_credential(
    credential: &Document<EgressCredentialSpec>,
    errors: &mut Vec<ConfigError>,
) {
    let spec = &credential.spec;
    let file = &credential.file;
    check_parts(credential, errors);
    errors.extend(spec.hosts.iter().filter_map(|host| host_error(host, file)));
    check_ports(&spec.ports, file, errors);
    if let Some(source) = &spec.source {
        match &source.value {
            SourceSpec::Oauth(oauth) => check_oauth(oauth, source, file, errors),
            plain => errors
                .extend(source_error("`source`", plain).map(|error| spot::at(error, file, source))),
        }
    }
    for placement in &spec.placements {
        if let Some(error) = placement_error(placement) {
            errors.push(spot::at(error, file, placement));
        }
    }
    if let Some(placeholder) = &spec.placeholder {
        check_placeholder(credential, placeholder, errors);
    }
    for header in &spec.request_headers {
        if let Some(error) = request_header_error(header, &spec.placements) {
            errors.push(spot::at(error, file, header));
        }
    }
}

fn check_parts(credential: &Document<EgressCredentialSpec>, errors: &mut Vec<ConfigError>) {
    let spec = &credential.spec;
    let parts = [
        (
            spec.source.is_none(),
            "TG0320",
            "source",
            "source: { env: { name: VARIABLE } }",
        ),
        (
            spec.hosts.is_empty(),
            "TG0321",
            "hosts",
            "hosts: [api.example.com]",
        ),
        (
            spec.placements.is_empty(),
            "TG0322",
            "placements",
            "placements: [{ bearer: {} }]",
        ),
    ];
    for (_, code, part, example) in parts.into_iter().filter(|(missing, ..)| *missing) {
        let name = &credential.name;
        let error = ConfigError::new(code, format!("credential `{name}` has no `{part}`"))
            .help(format!("add `{example}`"));
        errors.push(spot::at_document(error, credential));
    }
}

/// Fields that frame or route the message (RFC 9110, sections 7.2 and 7.6; RFC 9112, section 6):
/// changing them would change what the request is.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn placement_error(placement: &PlacementSpec) -> Option<ConfigError> {
    match placement {
        PlacementSpec::Bearer {} => None,
        PlacementSpec::Header { name, format } => {
            header_error(name).or_else(|| format_error(format.as_deref()?))
        }
        PlacementSpec::Basic { username, .. } => username
            .as_ref()
            .filter(|name| name.contains(':') || name.chars().any(char::is_control))
            .map(|_| {
                ConfigError::new(
                    "TG0323",
                    "a user name cannot hold `:` or control characters",
                )
                .help("see RFC 7617, section 2")
            }),
        PlacementSpec::Query { name } => name_error("query parameter", name),
        PlacementSpec::Cookie { name } => name_error("cookie", name),
        PlacementSpec::Path { template } => template_error(template),
        PlacementSpec::Body { pointer, .. } => {
            (!pointer.starts_with('/')).then(|| pointer_error(pointer))
        }
    }
}

fn header_error(name: &str) -> Option<ConfigError> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return Some(
            ConfigError::new("TG0323", format!("`{}` is not a header name", shown(name)))
                .help("write for example `x-api-key`"),
        );
    };
    FRAMING.contains(&header.as_str()).then(|| {
        ConfigError::new(
            "TG0323",
            format!("the header `{header}` cannot hold a credential"),
        )
        .help("it says how the message is read or where it goes, not who sends it")
    })
}

/// Fields that are no lists (RFC 9110, section 5.5), or hold what belongs to the agent or to a placement.
const NO_LISTS: [&str; 8] = [
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "expect",
    "proxy-authorization",
    "range",
    "x-api-key",
];

fn request_header_error(
    header: &RequestHeaderSpec,
    placements: &[Located<PlacementSpec>],
) -> Option<ConfigError> {
    let wrong = |message: String, help: &str| Some(ConfigError::new("TG0338", message).help(help));
    let name = HeaderName::from_bytes(header.name.as_bytes()).ok();
    let list = |name: &HeaderName| {
        let placed = placements.iter().any(|placement| match &placement.value {
            PlacementSpec::Header { name: own, .. } => name.as_str().eq_ignore_ascii_case(own),
            _ => false,
        });
        let known = FRAMING.iter().chain(&NO_LISTS);
        !placed && known.into_iter().all(|known| name.as_str() != *known)
    };
    if !name.as_ref().is_some_and(list) {
        return wrong(
            format!(
                "nothing can be appended to the header `{}`",
                shown(&header.name)
            ),
            "name a field whose value is a list, for example `anthropic-beta`",
        );
    }
    let word = |b: u8| b.is_ascii_graphic() && !b",;\"\\".contains(&b);
    match header.append.is_empty() || !header.append.bytes().all(word) {
        false => None,
        true => wrong(
            format!("`{}` is not one member of a list", shown(&header.append)),
            "write one word without blanks, commas or quotes",
        ),
    }
}

fn name_error(what: &str, name: &str) -> Option<ConfigError> {
    let token = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"=&;,#\"".contains(&b));
    (!token).then(|| {
        ConfigError::new(
            "TG0323",
            format!("`{}` is not the name of a {what}", shown(name)),
        )
        .help("write it as it is sent, without `=`")
    })
}

fn format_error(format: &str) -> Option<ConfigError> {
    let fits = format.matches("{}").count() == 1
        && format.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    (!fits).then(|| {
        ConfigError::new(
            "TG0324",
            format!("`{}` does not hold `{{}}` once", shown(format)),
        )
        .help("`{}` stands for the placeholder: `token {}`")
    })
}

fn template_error(template: &str) -> Option<ConfigError> {
    let fits = template.starts_with('/') && template.matches("{}").count() == 1;
    (!fits).then(|| {
        ConfigError::new(
            "TG0324",
            format!(
                "`{}` is not the beginning of a path with `{{}}` once",
                shown(template)
            ),
        )
        .help("`{}` stands for the placeholder: `/bot{}/`")
    })
}

/// Shorter ones would be found by chance in what an agent writes.
const MIN_PLACEHOLDER: usize = 8;

fn check_placeholder(
    credential: &Document<EgressCredentialSpec>,
    placeholder: &PlaceholderSpec,
    errors: &mut Vec<ConfigError>,
) {
    let file = &credential.file;
    if let (Some(_), Some(shape)) = (&placeholder.value, &placeholder.shape) {
        let error = ConfigError::new("TG0326", "a placeholder has both `value` and `shape`")
            .help("keep `shape` to derive one per agent, or `value` for a fixed one");
        errors.push(spot::at(error, file, shape));
    }
    if let Some(error) = placeholder.value.as_ref().and_then(value_error) {
        errors.extend(placeholder.value.as_ref().map(|v| spot::at(error, file, v)));
    }
    if let Some(shape) = &placeholder.shape
        && let Err(reason) = Shape::parse(shape)
    {
        let error = ConfigError::new("TG0327", reason.to_string())
            .help("write for example `sk-ant-api03-[A-Za-z0-9_-:93]AA`");
        errors.push(spot::at(error, file, shape));
    }
    if let Some(shape) = &placeholder.refresh_shape
        && let Some(error) = refresh_shape_error(shape, credential.spec.source.as_ref())
    {
        errors.push(spot::at(error, file, shape));
    }
    for name in placeholder.env.iter().filter(|name| !is_variable(name)) {
        let error = ConfigError::new(
            "TG0328",
            format!("`{}` is not the name of a variable", shown(name)),
        )
        .help("use letters, digits and `_`, not beginning with a digit");
        errors.push(spot::at_document(error, credential));
    }
}

fn refresh_shape_error(
    shape: &Located<String>,
    source: Option<&Located<SourceSpec>>,
) -> Option<ConfigError> {
    let refreshes = source.is_none_or(|source| match &source.value {
        SourceSpec::Oauth(oauth) => oauth.grant == GrantSpec::RefreshToken {},
        _ => false,
    });
    if !refreshes {
        let message = "`refreshShape` means nothing for a source without a refresh token";
        return Some(ConfigError::new("TG0337", message).help("remove it"));
    }
    let reason = Shape::parse(shape).err()?;
    Some(
        ConfigError::new("TG0327", reason.to_string())
            .help("write for example `sk-ant-ort01-[A-Za-z0-9_-:86]AA`"),
    )
}

fn value_error(value: &Located<String>) -> Option<ConfigError> {
    let visible = value.bytes().all(|b| b.is_ascii_graphic());
    let message = match visible {
        true if value.len() >= MIN_PLACEHOLDER => return None,
        true => format!("the placeholder is shorter than {MIN_PLACEHOLDER} characters"),
        false => "the placeholder holds a blank or a character beyond ASCII".to_owned(),
    };
    Some(
        ConfigError::new("TG0326", message).help(
            "write something that occurs nowhere else, shaped like the real thing, or a `shape`",
        ),
    )
}

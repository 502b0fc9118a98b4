//! Owns what is wrong with a source that gives a secret as it is: a variable, a file, a program.

use super::error::ConfigError;
use super::literal::shown;
use super::source::SourceSpec;

/// What is wrong with the source of a plain secret, if anything is. `what` is the field it stands in.
pub(super) fn source_error(what: &str, source: &SourceSpec) -> Option<ConfigError> {
    let wrong = |message: String, help: &str| Some(ConfigError::new("TG0330", message).help(help));
    match source {
        SourceSpec::Env { name } if !is_variable(name) => wrong(
            format!("`{}` is not the name of a variable", shown(name)),
            "use letters, digits and `_`, not beginning with a digit",
        ),
        SourceSpec::File { path, .. } if path.as_os_str().is_empty() => wrong(
            "the file has no path".into(),
            "write `path: /run/secrets/NAME`",
        ),
        SourceSpec::File {
            pointer: Some(pointer),
            ..
        } if !pointer.starts_with('/') => Some(pointer_error(pointer)),
        SourceSpec::Exec { command, env, .. } => {
            if command.first().is_none_or(String::is_empty) {
                return wrong(
                    "the command is empty".into(),
                    "write the program and its arguments: `command: [gh, auth, token]`",
                );
            }
            let name = env.keys().find(|name| !is_variable(name))?;
            wrong(
                format!("`{}` is not the name of a variable", shown(name)),
                "use letters, digits and `_`, not beginning with a digit",
            )
        }
        SourceSpec::Env { .. } | SourceSpec::File { .. } => None,
        SourceSpec::Oauth(_) => Some(oauth_error(what)),
    }
}

/// A name that every shell can set (POSIX, 8.1 Environment Variable Definition).
pub(super) fn is_variable(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(inside)
        && name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit())
}

/// What is said of a text that is no JSON pointer.
pub(super) fn pointer_error(pointer: &str) -> ConfigError {
    ConfigError::new(
        "TG0325",
        format!("`{}` is not a JSON pointer", shown(pointer)),
    )
    .help("a JSON pointer begins with `/` (RFC 6901): `/auth/token`")
}

/// An OAuth source needs an owner of its own, which only a credential has.
fn oauth_error(what: &str) -> ConfigError {
    ConfigError::new("TG0334", format!("{what} cannot be an OAuth source")).help(
        "write where it stands: `env: { name: VARIABLE }`, `file: { path: … }` or `exec: { command: […] }`",
    )
}

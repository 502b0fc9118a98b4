//! Owns `tollgate creds import`: a login that another program made goes to a credential's store. The
//! file it stands in is only read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;
use memchr::memmem;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::{Format, ImportArgs};
use super::context::{Context, block_on};
use super::moment::relative;
use super::operator::{myself, recorded};
use super::output::Exit;
use crate::app::error::StartError;
use crate::app::grant_desk::{GrantDesk, NotTaken, Present, logins, oauth_source};
use crate::app::harden::hide_memory;
use crate::app::identity::{AgentView, agent_view};
use crate::config::bundle::Bundle;
use crate::config::known_clients::facts;
use crate::config::source::{GrantSpec, KnownClient};
use crate::credential::source::MAX_BYTES;
use crate::inject::set::Whose;
use crate::oauth::import::read_login;
use crate::oauth::record::GrantRecord;
use crate::oauth::token::TokenSet;
use crate::telemetry::audit_event::Event;

/// Takes the login over; 1 if one that can be used is held and `--replace` was not said.
pub fn import(context: &Context, args: &ImportArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    // Tokens will be in its memory.
    hide_memory();
    let bundle = settings.bundle()?;
    let shown = args.file.display();
    let bytes = read(&args.file).map_err(|error| {
        StartError::setting(
            format!("{shown} cannot be read: {error}"),
            "name the file with the login",
        )
    })?;
    let made_by = made_by(&bytes);
    let name = match &args.credential {
        Some(name) => name.clone(),
        None => only_credential(&bundle, made_by)?,
    };
    let oauth = oauth_source(&bundle, &name)?;
    let client = oauth.client.as_ref().map(|client| client.value);
    if let (Some(client), Some(made_by)) = (client, made_by)
        && client != made_by
    {
        let (theirs, ours) = (facts(made_by).name, facts(client).name);
        return Err(StartError::setting(
            format!("{shown} is a login of {theirs}, and the credential `{name}` is for {ours}"),
            "name another credential with --as",
        ));
    }
    let tokens = read_login(&bytes)
        .map_err(|error| StartError::setting(format!("{shown} cannot be imported: {error}"), ""))?;
    drop(bytes);
    block_on(async {
        // An agent's own file, as Tollgate has filled it. Where several agents are served, one is not enough
        // to tell; then the endpoint will.
        if let Ok(view) = agent_view(&settings, &sources, None).await
            && is_placeholder(&tokens, &view)
        {
            return Err(StartError::setting(
                format!(
                    "{shown} cannot be imported: it holds placeholders of Tollgate, and no login"
                ),
                "import the file of the machine where the login was made",
            ));
        }
        let desk = GrantDesk::open(&name, oauth, &settings, &sources).await?;
        if !desk.has_logins() {
            return Err(StartError::setting(
                format!("the credential `{name}` is not begun by a login"),
                "it asks for tokens with a key or a secret of its own",
            ));
        }
        let unusable = |error: &dyn std::fmt::Display| StartError::setting(error, "");
        desk.store()
            .probe()
            .await
            .map_err(|error| unusable(&error))?;
        let present = match args.replace {
            true => Present::Replace,
            false => Present::Keep,
        };
        match desk.take_over(tokens, present).await {
            Ok(record) => {
                let stored = Event::LoginStored {
                    credential: name.clone(),
                    by: "import",
                    who: myself(),
                };
                recorded(context, &settings, stored);
                tell(context, args, &name, &desk.store().place(), &record);
                Ok(Exit::Ok)
            }
            Err(NotTaken::Held(record)) => Ok(refuse(context, &name, &record)),
            Err(NotTaken::Store(error)) => Err(unusable(&error)),
        }
    })?
}

fn is_placeholder(tokens: &TokenSet, view: &AgentView) -> bool {
    let mut tokens = [Some(&tokens.access), tokens.refresh.as_ref()]
        .into_iter()
        .flatten();
    tokens.any(|token| view.injectors.whose(&view.agent, token.expose()) != Whose::Nobody)
}

/// The bytes of the file, or of standard input for `-`; one more than a login may have tells that it is none.
fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Large enough not to grow: growing leaves copies behind in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    let limit = MAX_BYTES as u64 + 1;
    match file.as_os_str() == "-" {
        true => io::stdin().lock().take(limit).read_to_end(&mut bytes)?,
        false => File::open(file)?.take(limit).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

/// Whose file it is, by the key that only its own has.
fn made_by(bytes: &[u8]) -> Option<KnownClient> {
    let has = |key: &[u8]| memmem::find(bytes, key).is_some();
    if has(b"\"claudeAiOauth\"") {
        Some(KnownClient::ClaudeCode)
    } else if has(b"\"tokens\"") && has(b"\"id_token\"") {
        Some(KnownClient::Codex)
    } else {
        None
    }
}

/// The one credential that such a login can be for.
fn only_credential(bundle: &Bundle, made_by: Option<KnownClient>) -> Result<String, StartError> {
    let fitting: Vec<&str> = logins(bundle)
        .filter(|(_, oauth)| matches!(oauth.grant, GrantSpec::RefreshToken {}))
        .filter(|(_, oauth)| {
            let client = oauth.client.as_ref().map(|client| client.value);
            made_by.is_none() || client == made_by
        })
        .map(|(name, _)| name)
        .collect();
    match (&*fitting, made_by) {
        ([only], _) => Ok((*only).to_owned()),
        ([], Some(client)) => Err(StartError::setting(
            format!("no credential is for a login of {}", facts(client).name),
            match client {
                KnownClient::ClaudeCode => "add `presets: [claude-login]` to the configuration",
                KnownClient::Codex => "add `presets: [codex-login]` to the configuration",
            },
        )),
        ([], None) => Err(StartError::setting(
            "no credential is begun by a login",
            "add `presets: [claude-login]`, or a credential with `source: { oauth: { … } }`",
        )),
        _ => Err(StartError::setting(
            "several credentials could be meant",
            format!("name one with --as: {}", fitting.join(", ")),
        )),
    }
}

fn refuse(context: &Context, name: &str, record: &GrantRecord) -> Exit {
    let at = record
        .refreshed_at
        .and_then(|at| Timestamp::try_from(at).ok());
    let when = at.map(|at| format!(", renewed {}", relative(at, Timestamp::now())));
    let what = format!(
        "`{name}` holds a login already (generation {}{})",
        record.generation,
        when.unwrap_or_default()
    );
    let help = "--replace puts the new one in its place; a file that was imported before holds an old refresh token, and is worth nothing";
    context.printer.problem(&what, help, Exit::No)
}

fn tell(context: &Context, args: &ImportArgs, name: &str, place: &str, record: &GrantRecord) {
    let tokens = record.tokens.as_ref();
    let ends = tokens.and_then(|tokens| tokens.expires_at);
    let ends = ends.and_then(|at| Timestamp::try_from(at).ok());
    if context.printer.format == Format::Json {
        context.printer.json(&json!({
            "name": name,
            "store": place,
            "generation": record.generation,
            "expiresAt": ends.map(|at| format!("{at:.0}")),
        }));
    } else {
        let until = match ends.filter(|at| *at > Timestamp::now()) {
            Some(at) => format!(
                "its access token expires {}",
                relative(at, Timestamp::now())
            ),
            None => "its access token is renewed at the first use".to_owned(),
        };
        let generation = record.generation;
        context.printer.out(&format!(
            "{name}: login taken over into {place} (generation {generation}); {until}"
        ));
    }
    if args.file.as_os_str() == "-" {
        return;
    }
    let file = args.file.display();
    context.printer.note(&format!(
        "{file} was left as it is. Do not use it any more: refresh tokens are good for one use, and whoever uses theirs \
         second ends the login for all. Move it away:\n  mv {file} {file}.imported\n\
         Do not log out with it: that revokes the login that Tollgate now holds."
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_own_keys() {
        let claude = br#"{"claudeAiOauth":{"accessToken":"a","refreshToken":"r"}}"#;
        let codex = br#"{"tokens":{"id_token":"x","access_token":"a"}}"#;
        for (bytes, client) in [
            (&claude[..], Some(KnownClient::ClaudeCode)),
            (codex, Some(KnownClient::Codex)),
            (br#"{"kind":"tollgate.dev/oauth-grant","tokens":{}}"#, None),
            (b"a-refresh-token", None),
        ] {
            assert_eq!(made_by(bytes), client);
        }
    }
}

//! Owns `tollgate creds login`: a person logs in with a browser of their own, and pastes the code or
//! enters one there. Works on a terminal and over pipes.

use std::io::{self, BufRead, IsTerminal};

use jiff::Timestamp;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::{Format, LoginArgs};
use super::context::{Context, block_on};
use super::moment::relative;
use super::operator::{myself, recorded};
use super::output::Exit;
use crate::app::error::StartError;
use crate::app::grant_desk::{GrantDesk, oauth_source};
use crate::app::harden::hide_memory;
use crate::oauth::asking::Asking;
use crate::oauth::device::DeviceLogin;
use crate::oauth::login::{AuthorizationCode, AuthorizationRequest};
use crate::oauth::login_error::LoginError;
use crate::oauth::record::GrantRecord;
use crate::oauth::redeem::Progress;
use crate::oauth::token::TokenSet;
use crate::telemetry::audit_event::Event;

/// How often a wrong code may be pasted.
const TRIES: usize = 3;

/// Logs in and stores the login, over one that is held; 1 if it came to nothing.
pub fn login(context: &Context, args: &LoginArgs) -> Result<Exit, StartError> {
    let settings = context.settings()?;
    let sources = context.sources(&settings)?;
    // Tokens will be in its memory.
    hide_memory();
    let bundle = settings.bundle()?;
    let oauth = oauth_source(&bundle, &args.name)?;
    block_on(async {
        let desk = GrantDesk::open(&args.name, oauth, &settings, &sources).await?;
        if !desk.has_logins() {
            return Err(StartError::setting(
                format!("the credential `{}` is not begun by a login", args.name),
                "it asks for tokens with a key or a secret of its own",
            ));
        }
        // Before a person has gone to any trouble.
        let probed = desk.store().probe().await;
        probed.map_err(|error| StartError::setting(error, ""))?;
        let tokens = match obtain(context, args, desk.asking()).await {
            Ok(tokens) => tokens,
            Err(error) => return Ok(context.printer.problem(&error.to_string(), "", Exit::No)),
        };
        if tokens.refresh.is_none() {
            let what = "the login came without a refresh token and could not be renewed; nothing was stored";
            let help = "ask for the scope that gives one (`offline_access` in many places) with `login.scopes`";
            return Ok(context.printer.problem(what, help, Exit::No));
        }
        let told = |progress| {
            if let Progress::Unstored(error) = progress {
                let text = format!("the login cannot be stored yet, trying again: {error}");
                context.printer.note(&text);
            }
        };
        let stored = desk.log_in(tokens, &told).await;
        let record = stored.map_err(|error| StartError::setting(error, ""))?;
        let stored = Event::LoginStored {
            credential: args.name.clone(),
            by: "login",
            who: myself(),
        };
        recorded(context, &settings, stored);
        tell(context, &args.name, &desk.store().place(), &record);
        Ok(Exit::Ok)
    })?
}

async fn obtain(
    context: &Context,
    args: &LoginArgs,
    asking: &Asking,
) -> Result<TokenSet, LoginError> {
    let has_device = asking.grant().settings().login.device.is_some();
    match has_device && !args.paste {
        true => with_device(context, asking).await,
        false => with_browser(context, asking).await,
    }
}

async fn with_device(context: &Context, asking: &Asking) -> Result<TokenSet, LoginError> {
    let login = DeviceLogin::start(asking).await?;
    let uri = login.verification_uri_complete();
    let uri = uri.unwrap_or(login.verification_uri());
    if context.printer.format == Format::Json {
        context.printer.json(&json!({
            "verificationUri": uri,
            "userCode": login.user_code(),
        }));
    } else {
        context.printer.out(&format!(
            "Open this page in a browser, on any machine:\n\n  {uri}\n\nand enter this code there:\n\n  {}\n\n\
             Enter it only if you began this login yourself. Waiting for it …",
            login.user_code()
        ));
    }
    login.wait(asking).await
}

async fn with_browser(context: &Context, asking: &Asking) -> Result<TokenSet, LoginError> {
    let request = AuthorizationRequest::new(asking.grant().settings())?;
    if context.printer.format == Format::Json {
        context.printer.json(&json!({ "url": request.url() }));
    } else {
        context.printer.out(&format!(
            "Open this page in a browser, on any machine, and log in:\n\n  {}\n\n\
             Paste here the code that it shows at the end, or the whole address at which it ends:",
            request.url()
        ));
    }
    let code = pasted(context, &request)?;
    request.exchange(asking, &code).await
}

fn pasted(
    context: &Context,
    request: &AuthorizationRequest,
) -> Result<AuthorizationCode, LoginError> {
    let mut input = io::stdin().lock();
    let mut last = LoginError::NoCode;
    for _ in 0..TRIES {
        let mut line = Zeroizing::new(String::with_capacity(4096));
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => return Err(last),
            Ok(_) => {}
        }
        match request.parse_pasted(&line) {
            Ok(code) => return Ok(code),
            Err(error @ (LoginError::NoCode | LoginError::OtherLogin)) => {
                if io::stdin().is_terminal() {
                    context.printer.note(&format!("{error}; paste it again:"));
                }
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn tell(context: &Context, name: &str, place: &str, record: &GrantRecord) {
    let tokens = record.tokens.as_ref();
    let ends = tokens.and_then(|tokens| tokens.expires_at);
    let ends = ends.and_then(|at| Timestamp::try_from(at).ok());
    if context.printer.format == Format::Json {
        return context.printer.json(&json!({
            "name": name,
            "store": place,
            "generation": record.generation,
            "expiresAt": ends.map(|at| format!("{at:.0}")),
        }));
    }
    let until = ends.map(|at| {
        format!(
            "; its access token expires {}",
            relative(at, Timestamp::now())
        )
    });
    context.printer.out(&format!(
        "{name}: logged in, kept in {place} (generation {}){}",
        record.generation,
        until.unwrap_or_default()
    ));
}

//! Owns the grants of services: an assertion that a service account signed (RFC 7523), and the
//! tokens of a GitHub App's installation.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::recorded::Recorded;
use super::super::reply::{self, Reply};
use super::clock::Clock;
use super::jwt::PublicKey;
use super::ledger::{Ledger, covers};
use super::mint::Issued;
use super::request::{Parameters, Refused};
use super::settings::{Settings, grant};

/// Clocks of honest parties differ by less (RFC 7523, section 3, asks for "a few minutes at most").
const LEEWAY: i64 = 30;
/// The longest life of an assertion that Google takes.
const LONGEST: i64 = 3600;
/// The farthest `exp` that GitHub takes.
const GITHUB_LONGEST: i64 = 600;

/// A service account that may ask.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    pub issuer: String,
    /// The token endpoint's URL if not given.
    pub audience: Option<String>,
    pub key: PublicKey,
}

/// A GitHub App and where it is installed.
#[derive(Clone, Debug)]
pub struct App {
    /// The App's ID or client ID.
    pub id: String,
    pub installation: u64,
    pub key: PublicKey,
}

/// Grants an access token for an assertion.
pub fn redeem(
    settings: &Settings,
    clock: &Clock,
    ledger: &Ledger,
    sent: &Parameters,
) -> Result<Issued, Refused> {
    let Some(account) = &settings.service_account else {
        return Err(Refused::breach(
            "unsupported_grant_type",
            "no service account is known",
        ));
    };
    let breach = |why: &str| Refused::breach("invalid_grant", format!("the assertion: {why}"));
    let claims = account.key.verify(sent.need("assertion")).map_err(breach)?;
    if claims["iss"] != account.issuer.as_str() {
        return Err(breach("iss is another one"));
    }
    let audience = account.audience.clone().unwrap_or_else(|| settings.url());
    if claims["aud"] != audience.as_str() {
        return Err(breach(&format!("aud is not {audience}")));
    }
    let (Some(iat), Some(exp)) = (claims["iat"].as_i64(), claims["exp"].as_i64()) else {
        return Err(breach("iat and exp must be whole seconds"));
    };
    if exp <= iat || exp - iat > LONGEST {
        return Err(breach("it must live for an hour at most"));
    }
    let now = clock.now().as_second();
    if iat > now + LEEWAY || exp < now - LEEWAY {
        // A client whose clock is right, or who was not told the time, could not know.
        let why = format!("iat {iat} and exp {exp} do not fit the time {now}");
        return Err(Refused::no("invalid_grant", why));
    }
    let scope = sent.get("scope").or(claims["scope"].as_str());
    let scope = scope.unwrap_or(&settings.scope);
    if !covers(&settings.scope, scope) {
        return Err(Refused::breach("invalid_scope", scope));
    }
    Ok(ledger.access_only(grant::JWT, scope))
}

/// The installation that a path asks tokens for.
pub fn installation(path: &str) -> Option<u64> {
    let rest = path.strip_prefix("/app/installations/")?;
    rest.strip_suffix("/access_tokens")?.parse().ok()
}

/// Grants an installation's token: <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>.
///
/// Errors are a status and GitHub's words for it.
pub fn install(
    app: &App,
    clock: &Clock,
    ledger: &Ledger,
    head: &Recorded,
    body: &[u8],
) -> Result<Value, (u16, String)> {
    let in_order = asked(app, head, body).and_then(|wanted| {
        let claims = authenticated(app, head).map_err(|why| (401, why))?;
        Ok((wanted, claims))
    });
    let breach = |(_, why): &(u16, String)| ledger.violation(format!("{}: {why}", head.path()));
    let (wanted, claims) = in_order.inspect_err(breach)?;
    // Wrong times are no breach: the provider's clock may be the wrong one.
    timely(&claims, clock.now().as_second()).map_err(|why| (401, why.to_owned()))?;
    let (token, lifetime) = ledger.installation();
    let end = clock.now() + SignedDuration::try_from(lifetime).unwrap();
    let end = Timestamp::from_second(end.as_second()).unwrap();
    let all = json!({"contents": "read", "metadata": "read"});
    let chosen = wanted.get("repositories").or(wanted.get("repository_ids"));
    Ok(json!({
        "token": token,
        "expires_at": end.to_string(),
        "permissions": wanted.get("permissions").cloned().unwrap_or(all),
        "repository_selection": if chosen.is_some() { "selected" } else { "all" },
    }))
}

fn timely(claims: &Value, now: i64) -> Result<(), &'static str> {
    let (iat, exp) = (claims["iat"].as_i64(), claims["exp"].as_i64());
    if iat.is_none_or(|iat| iat > now) {
        return Err(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        );
    }
    if exp.is_none_or(|exp| exp > now + GITHUB_LONGEST) {
        return Err("'Expiration time' claim ('exp') is too far in the future");
    }
    if exp.is_none_or(|exp| exp <= now) {
        return Err("'Expiration time' claim ('exp') must be in the future");
    }
    Ok(())
}

/// What the body asks for; a request that GitHub would not read further is refused.
fn asked(app: &App, head: &Recorded, body: &[u8]) -> Result<Value, (u16, String)> {
    if head.method != "POST" {
        return Err((404, "Not Found".to_owned()));
    }
    if head.header("user-agent").is_none_or(str::is_empty) {
        return Err((403, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header".to_owned()));
    }
    if installation(head.path()) != Some(app.installation) {
        return Err((404, "Not Found".to_owned()));
    }
    if body.is_empty() {
        return Ok(json!({}));
    }
    let wanted: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(members) = wanted.as_object() else {
        return Err((400, "Problems parsing JSON".to_owned()));
    };
    let known = ["repositories", "repository_ids", "permissions"];
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err((422, format!("\"{name}\" is not a permitted key."))),
        None => Ok(wanted),
    }
}

fn authenticated(app: &App, head: &Recorded) -> Result<Value, String> {
    let [authorization] = head.all("authorization")[..] else {
        return Err("Requires authentication, once".to_owned());
    };
    let jwt = authorization.strip_prefix("Bearer ");
    let jwt = jwt.ok_or("A JSON web token could not be decoded")?;
    let claims = app.key.verify(jwt);
    let claims = claims.map_err(|why| format!("A JSON web token could not be decoded: {why}"))?;
    let issuer = match &claims["iss"] {
        Value::Number(id) => id.to_string(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    match issuer == app.id {
        true => Ok(claims),
        false => Err("Integration not found: iss is another App's".to_owned()),
    }
}

/// GitHub's way to say no.
pub fn refusal(status: u16, message: &str) -> Reply {
    let body = json!({
        "message": message,
        "documentation_url": "https://docs.github.com/rest",
        "status": status.to_string(),
    });
    reply::json(status, &body)
}

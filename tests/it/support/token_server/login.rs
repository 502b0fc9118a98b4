//! Owns the authorization step of a login: the URL that a person opens, the code that comes of it,
//! and PKCE (RFC 6749, section 4.1; RFC 7636).

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::recorded::sha256;
use super::ledger::{Family, Ledger, covers};
use super::mint::{Issued, random};
use super::request::{Parameters, Refused, form};
use super::settings::{Settings, grant};

/// What an authorization URL asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub challenge: String,
    pub redirect_uri: String,
    pub state: String,
    pub scope: String,
}

/// What a person gets who says yes.
#[derive(Clone, Debug)]
pub struct Consent {
    pub code: String,
    /// Where the browser is sent.
    pub location: String,
    /// What Claude's page shows to be pasted.
    pub pasted: String,
}

struct Code {
    asked: Asked,
    used: Option<Family>,
}

#[derive(Default)]
pub struct Codes(Mutex<BTreeMap<String, Code>>);

impl Codes {
    pub fn issue(&self, asked: Asked) -> Consent {
        let code = random(43);
        let Asked {
            state,
            redirect_uri,
            ..
        } = &asked;
        let consent = Consent {
            location: format!("{redirect_uri}?code={code}&state={state}"),
            pasted: format!("{code}#{state}"),
            code: code.clone(),
        };
        self.0
            .lock()
            .unwrap()
            .insert(code, Code { asked, used: None });
        consent
    }

    /// Takes a code, once; a second time ends what the first one began (RFC 6749, section 4.1.2).
    pub fn redeem(&self, sent: &Parameters, ledger: &Ledger) -> Result<Issued, Refused> {
        let mut codes = self.0.lock().unwrap();
        let Some(code) = codes.get_mut(sent.need("code")) else {
            return Err(Refused::breach(
                "invalid_grant",
                "a code that was never issued",
            ));
        };
        if let Some(family) = code.used {
            ledger.revoke(family);
            ledger.reused(format!("code of login {family}"));
            return Err(Refused::no("invalid_grant", "the code was used before"));
        }
        let Asked {
            challenge,
            redirect_uri,
            state,
            scope,
        } = &code.asked;
        if sent.need("redirect_uri") != redirect_uri {
            return Err(Refused::breach(
                "invalid_grant",
                format!("not redirected to {redirect_uri}"),
            ));
        }
        if sent.get("state").is_some_and(|sent| sent != state) {
            return Err(Refused::breach(
                "invalid_grant",
                "the state is another login's",
            ));
        }
        let verifier = sent.need("code_verifier");
        let unreserved = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
        if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(unreserved) {
            return Err(Refused::breach(
                "invalid_grant",
                "no code_verifier of RFC 7636, section 4.1",
            ));
        }
        if URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())) != *challenge {
            return Err(Refused::breach(
                "invalid_grant",
                "the code_verifier does not fit the challenge",
            ));
        }
        let (family, issued) = ledger.log_in(grant::CODE, scope, sent.lifetime());
        code.used = Some(family);
        Ok(issued)
    }
}

/// Reads the URL that a person was told to open, as strictly as a provider.
#[track_caller]
pub fn read(settings: &Settings, url: &str) -> Asked {
    let (_, query) = url
        .split_once('?')
        .unwrap_or_else(|| panic!("no query: {url}"));
    let pairs = form(query).unwrap_or_else(|| panic!("not well encoded: {url}"));
    let mut sent = BTreeMap::new();
    for (name, value) in pairs {
        assert!(
            sent.insert(name.clone(), value).is_none(),
            "{name} came twice: {url}"
        );
    }
    let mut take = |name: &str| {
        sent.remove(name)
            .unwrap_or_else(|| panic!("{name} is missing: {url}"))
    };
    assert_eq!(take("response_type"), "code", "{url}");
    assert_eq!(take("client_id"), settings.client_id, "{url}");
    assert_eq!(take("code_challenge_method"), "S256", "{url}");
    let asked = Asked {
        challenge: take("code_challenge"),
        redirect_uri: take("redirect_uri"),
        state: take("state"),
        scope: take("scope"),
    };
    assert_eq!(asked.challenge.len(), 43, "no SHA-256 in base64url: {url}");
    assert!(
        asked.state.len() >= 22,
        "a state that could be guessed: {url}"
    );
    assert!(
        covers(&settings.scope, &asked.scope),
        "{url} asks for more than {:?}",
        settings.scope
    );
    for name in sent.keys() {
        assert!(
            settings.authorize_extras.contains(&name.as_str()),
            "{name} has no place in {url}"
        );
    }
    asked
}

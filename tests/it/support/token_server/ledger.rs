//! Owns the truth about every login and token: what is live, what was spent, what was done wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::mint::{Issued, Mint};
use super::request::{Breach, Refused};
use super::settings::{Beyond, ExpiresIn, Rotation, Settings, grant};
use super::truth::Truth;

/// A login with all the tokens that came of it, by its place in the list.
pub type Family = usize;

#[derive(Default)]
struct Login {
    revoked: bool,
    scope: String,
    /// Requests that redeem its refresh tokens right now.
    redeeming: usize,
}

struct Access {
    /// Tokens without a login: client credentials, assertions, installations.
    family: Option<Family>,
    end: Instant,
    withdrawn: bool,
}

struct Refresh {
    family: Family,
    spent: bool,
}

#[derive(Default)]
struct Books {
    logins: Vec<Login>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    /// In the order they were made.
    order: Vec<String>,
    granted: BTreeMap<String, usize>,
    rotations: usize,
    refused: usize,
    revocations: usize,
    reuses: Vec<String>,
    violations: Vec<String>,
    most_at_once: usize,
    lifetime: Duration,
}

/// What an access token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    Live,
    Expired {
        since: Duration,
    },
    /// With its login: logged out, or a refresh token came twice.
    Revoked,
    /// Alone, by the provider's whim; its login is as it was.
    Withdrawn,
    Unknown,
}

pub struct Ledger {
    pub mint: Mint,
    settings: Arc<Settings>,
    books: Mutex<Books>,
    changed: Arc<Notify>,
}

impl Ledger {
    pub fn new(settings: Arc<Settings>, mint: Mint) -> Self {
        let books = Books {
            lifetime: settings.lifetime,
            ..Books::default()
        };
        Self {
            mint,
            settings,
            books: Mutex::new(books),
            changed: Arc::default(),
        }
    }

    fn change<T>(&self, how: impl FnOnce(&mut Books) -> T) -> T {
        let done = how(&mut self.books.lock().unwrap());
        self.changed.notify_waiters();
        done
    }

    /// Of tokens that are made from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.change(|books| books.lifetime = lifetime);
    }

    /// A new login with its first tokens.
    pub fn log_in(&self, grant: &str, scope: &str, lifetime: Option<Duration>) -> (Family, Issued) {
        self.change(|books| {
            let lifetime = lifetime.unwrap_or(books.lifetime);
            let family = books.logins.len();
            books.logins.push(Login {
                scope: scope.to_owned(),
                ..Login::default()
            });
            books.count(grant);
            let mut issued = self.issue(books, Some(family), scope, lifetime);
            issued.refresh_token = Some(self.refresh(books, family));
            (family, issued)
        })
    }

    /// An access token that belongs to no login.
    pub fn access_only(&self, grant: &str, scope: &str) -> Issued {
        self.change(|books| {
            books.count(grant);
            let lifetime = books.lifetime;
            self.issue(books, None, scope, lifetime)
        })
    }

    /// GitHub's own kind of access token.
    pub fn installation(&self) -> (String, Duration) {
        self.change(|books| {
            books.count("installation");
            let token = self.mint.installation();
            books.keep_access(&token, None, books.lifetime);
            (token, books.lifetime)
        })
    }

    /// Takes a refresh token. One that was spent ends its login: somebody else has it (RFC 9700, section 4.14.2).
    pub fn redeem(
        &self,
        token: &str,
        scope: Option<&str>,
        lifetime: Option<Duration>,
    ) -> Result<Issued, Refused> {
        self.change(|books| {
            let family = books.usable(token).inspect_err(|_| books.refused += 1)?;
            let scope = self.narrowed(&books.logins[family].scope, scope)?;
            books.count(grant::REFRESH);
            let lifetime = lifetime.unwrap_or(books.lifetime);
            let mut issued = self.issue(books, Some(family), &scope, lifetime);
            if self.settings.rotation == Rotation::EveryTime {
                books.refresh.get_mut(token).unwrap().spent = true;
                books.rotations += 1;
                issued.refresh_token = Some(self.refresh(books, family));
            }
            Ok(issued)
        })
    }

    /// What a refresh is for: all of the login, or a part of it.
    fn narrowed(&self, whole: &str, asked: Option<&str>) -> Result<String, Refused> {
        let asked = asked.unwrap_or(whole);
        if covers(whole, asked) {
            return Ok(asked.to_owned());
        }
        if self.settings.beyond == Beyond::Refused || !covers(&self.settings.scope, asked) {
            let why = format!("{asked:?} is more than {whole:?}");
            return Err(Refused::breach("invalid_scope", why));
        }
        let granted = asked.split(' ').filter(|part| covers(whole, part));
        Ok(granted.collect::<Vec<_>>().join(" "))
    }

    fn issue(
        &self,
        books: &mut Books,
        family: Option<Family>,
        scope: &str,
        lifetime: Duration,
    ) -> Issued {
        let access_token = self.mint.access(lifetime);
        books.keep_access(&access_token, family, lifetime);
        Issued {
            access_token,
            refresh_token: None,
            id_token: family.and_then(|_| self.mint.id(&self.settings.client_id, lifetime)),
            lifetime,
            scope: scope.to_owned(),
        }
    }

    fn refresh(&self, books: &mut Books, family: Family) -> String {
        let token = self.mint.refresh();
        let spent = false;
        books
            .refresh
            .insert(token.clone(), Refresh { family, spent });
        books.order.push(token.clone());
        token
    }

    /// Counts a request that redeems this token, until the guard is dropped.
    pub fn redeeming(self: &Arc<Self>, token: &str) -> Option<Redeeming> {
        let family = self.change(|books| {
            let family = books.refresh.get(token)?.family;
            books.logins[family].redeeming += 1;
            books.most_at_once = books.most_at_once.max(books.logins[family].redeeming);
            Some(family)
        })?;
        let ledger = self.clone();
        Some(Redeeming { ledger, family })
    }

    pub fn worth(&self, access_token: &str) -> Worth {
        let books = self.books.lock().unwrap();
        let Some(access) = books.access.get(access_token) else {
            return Worth::Unknown;
        };
        let late = Instant::now().checked_duration_since(access.end);
        match (access.family.map(|f| books.logins[f].revoked), late) {
            (Some(true), _) => Worth::Revoked,
            (_, Some(since)) => Worth::Expired { since },
            _ if access.withdrawn => Worth::Withdrawn,
            _ => Worth::Live,
        }
    }

    /// Ends one access token; its login and refresh token stay good.
    #[track_caller]
    pub fn withdraw(&self, access_token: &str) {
        let known = self.change(|books| {
            let access = books.access.get_mut(access_token);
            access.map(|access| access.withdrawn = true)
        });
        assert!(known.is_some(), "no such access token was issued");
    }

    /// Ends the login that a token belongs to (RFC 7009, section 2.1); a client sends its own only.
    pub fn revoke_token(&self, token: &str) -> Result<(), Refused> {
        self.change(|books| {
            let access = books.access.get(token).and_then(|access| access.family);
            let family = books
                .refresh
                .get(token)
                .map(|refresh| refresh.family)
                .or(access);
            let family = family.ok_or_else(|| {
                Refused::breach("invalid_request", "revokes a token that was never issued")
            })?;
            books.logins[family].revoked = true;
            books.revocations += 1;
            Ok(())
        })
    }

    /// Ends one login.
    pub fn revoke(&self, family: Family) {
        self.change(|books| books.logins[family].revoked = true);
    }

    /// Ends all logins.
    pub fn revoke_all(&self) {
        self.change(|books| {
            books
                .logins
                .iter_mut()
                .for_each(|login| login.revoked = true)
        });
    }

    /// A code or another one-time thing came again.
    pub fn reused(&self, what: String) {
        self.change(|books| books.reuses.push(what));
    }

    pub fn violation(&self, what: String) {
        self.change(|books| books.violations.push(what));
    }

    /// Puts a refusal on record, where it was the client's fault.
    pub fn note(&self, refused: &Refused, place: &str) {
        if refused.breach == Breach::Yes {
            self.violation(format!("{place}: {}: {}", refused.error, refused.why));
        }
    }

    pub fn truth(&self) -> Truth {
        let books = self.books.lock().unwrap();
        let now = Instant::now();
        let alive = |family: Family| !books.logins[family].revoked;
        let is_live_access = |token: &str| {
            books.access.get(token).is_some_and(|access| {
                access.end > now && !access.withdrawn && access.family.is_none_or(alive)
            })
        };
        let is_live_refresh = |token: &str| {
            let refresh = books.refresh.get(token);
            refresh.is_some_and(|refresh| !refresh.spent && alive(refresh.family))
        };
        let only = |wanted: &dyn Fn(&str) -> bool| {
            let tokens = books.order.iter().filter(|token| wanted(token));
            tokens.cloned().collect::<Vec<_>>()
        };
        let refresh = books.refresh.values();
        let live = refresh.filter(|refresh| !refresh.spent && alive(refresh.family));
        let live_grants: BTreeSet<Family> = live.map(|refresh| refresh.family).collect();
        Truth {
            logins: books.logins.len(),
            refreshes: books.granted.get(grant::REFRESH).copied().unwrap_or(0),
            rotations: books.rotations,
            refused: books.refused,
            revocations: books.revocations,
            reuses: books.reuses.clone(),
            granted: books.granted.clone(),
            live_grants: live_grants.len(),
            access_tokens: only(&is_live_access),
            refresh_tokens: only(&is_live_refresh),
            violations: books.violations.clone(),
            most_at_once: books.most_at_once,
        }
    }

    pub async fn wait_until(&self, what: &str, wanted: impl Fn(&Truth) -> bool) -> Truth {
        let found = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let truth = self.truth();
                if wanted(&truth) {
                    return truth;
                }
                changed.await;
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("never {what}: {:#?}", self.truth()))
    }

    /// What `expires_in` says of a token.
    pub fn expires_in(&self, issued: &Issued) -> Option<u64> {
        let told = self.settings.expires_in == ExpiresIn::Told;
        told.then_some(issued.lifetime.as_secs())
    }
}

impl Books {
    fn count(&mut self, grant: &str) {
        *self.granted.entry(grant.to_owned()).or_default() += 1;
    }

    /// The login of a refresh token that is live.
    fn usable(&mut self, token: &str) -> Result<Family, Refused> {
        let Some(&Refresh { family, spent }) = self.refresh.get(token) else {
            let refused = Refused::breach("invalid_grant", "a refresh token that was never issued");
            return Err(refused.coded("refresh_token_invalidated"));
        };
        if spent {
            self.logins[family].revoked = true;
            self.reuses
                .push(format!("refresh token of login {family}: {token}"));
            let refused = Refused::no("invalid_grant", "the refresh token was used before");
            return Err(refused.coded("refresh_token_reused"));
        }
        if self.logins[family].revoked {
            let refused = Refused::no("invalid_grant", "the login is revoked");
            return Err(refused.coded("refresh_token_invalidated"));
        }
        Ok(family)
    }

    fn keep_access(&mut self, token: &str, family: Option<Family>, lifetime: Duration) {
        let access = Access {
            family,
            end: Instant::now() + lifetime,
            withdrawn: false,
        };
        self.access.insert(token.to_owned(), access);
        self.order.push(token.to_owned());
    }
}

/// One request that redeems a refresh token.
pub struct Redeeming {
    ledger: Arc<Ledger>,
    family: Family,
}

impl Drop for Redeeming {
    fn drop(&mut self) {
        let family = self.family;
        self.ledger
            .change(|books| books.logins[family].redeeming -= 1);
    }
}

/// Whether every part of `asked` is in `whole`.
pub fn covers(whole: &str, asked: &str) -> bool {
    asked
        .split(' ')
        .all(|part| whole.split(' ').any(|p| p == part))
}

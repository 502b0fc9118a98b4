//! Owns the truth about every login and token: what is live, what was spent, what was done wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::mint::{Issued, Mint};
use super::request::{Breach, Refused};
use super::settings::{ExpiresIn, Rotation, Settings, grant};

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

/// What a provider knows, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Logins that came to a grant: codes, devices, and those that the test made.
    pub logins: usize,
    /// Refresh tokens that were accepted, whether or not the answer arrived.
    pub refreshes: usize,
    /// Refresh tokens that were spent and replaced.
    pub rotations: usize,
    /// Refresh tokens and codes that came again after they were spent.
    pub reuses: Vec<String>,
    /// Requests that were granted, by `grant_type` (`installation` for GitHub's).
    pub granted: BTreeMap<String, usize>,
    /// Logins that are not revoked and have a refresh token that is not spent.
    pub live_grants: usize,
    /// Live tokens, the newest last.
    pub access_tokens: Vec<String>,
    pub refresh_tokens: Vec<String>,
    /// What no honest client does.
    pub violations: Vec<String>,
    /// The most requests that redeemed refresh tokens of one login at the same time.
    pub most_at_once: usize,
}

impl Truth {
    /// The newest one that is live.
    #[track_caller]
    pub fn access_token(&self) -> &str {
        self.access_tokens.last().expect("a live access token")
    }

    /// The only one that is live.
    #[track_caller]
    pub fn refresh_token(&self) -> &str {
        assert_eq!(self.refresh_tokens.len(), 1, "{self:#?}");
        &self.refresh_tokens[0]
    }

    /// One login is live, nothing was spent twice, one refresh at a time, and nobody broke a rule.
    #[track_caller]
    pub fn assert_one_clean_grant(&self) {
        assert_eq!(self.live_grants, 1, "live grants: {self:#?}");
        assert_eq!(self.reuses, [""; 0], "spent tokens came again: {self:#?}");
        assert!(self.most_at_once <= 1, "refreshed at once: {self:#?}");
        self.assert_no_violation();
    }

    #[track_caller]
    pub fn assert_no_violation(&self) {
        assert_eq!(self.violations, [""; 0], "{self:#?}");
    }
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
    pub fn log_in(&self, grant: &str, scope: &str) -> (Family, Issued) {
        self.change(|books| {
            let family = books.logins.len();
            books.logins.push(Login {
                scope: scope.to_owned(),
                ..Login::default()
            });
            books.count(grant);
            let mut issued = self.issue(books, Some(family), scope);
            issued.refresh_token = Some(self.refresh(books, family));
            (family, issued)
        })
    }

    /// An access token that belongs to no login.
    pub fn access_only(&self, grant: &str, scope: &str) -> Issued {
        self.change(|books| {
            books.count(grant);
            self.issue(books, None, scope)
        })
    }

    /// GitHub's own kind of access token.
    pub fn installation(&self) -> (String, Duration) {
        self.change(|books| {
            books.count("installation");
            let token = self.mint.installation();
            books.keep_access(&token, None);
            (token, books.lifetime)
        })
    }

    /// Takes a refresh token. One that was spent ends its login: somebody else has it (RFC 9700, section 4.14.2).
    pub fn redeem(&self, token: &str, scope: Option<&str>) -> Result<Issued, Refused> {
        self.change(|books| {
            let Some(&Refresh { family, spent }) = books.refresh.get(token) else {
                return Err(Refused::breach(
                    "invalid_grant",
                    "a refresh token that was never issued",
                ));
            };
            if spent {
                books.logins[family].revoked = true;
                books
                    .reuses
                    .push(format!("refresh token of login {family}: {token}"));
                return Err(Refused::no(
                    "invalid_grant",
                    "the refresh token was used before",
                ));
            }
            if books.logins[family].revoked {
                return Err(Refused::no("invalid_grant", "the login is revoked"));
            }
            let whole = books.logins[family].scope.clone();
            let scope = scope.unwrap_or(&whole);
            if !covers(&whole, scope) {
                let why = format!("{scope:?} is more than {whole:?}");
                return Err(Refused::breach("invalid_scope", why));
            }
            books.count(grant::REFRESH);
            let mut issued = self.issue(books, Some(family), scope);
            if self.settings.rotation == Rotation::EveryTime {
                books.refresh.get_mut(token).unwrap().spent = true;
                books.rotations += 1;
                issued.refresh_token = Some(self.refresh(books, family));
            }
            Ok(issued)
        })
    }

    fn issue(&self, books: &mut Books, family: Option<Family>, scope: &str) -> Issued {
        let lifetime = books.lifetime;
        let access_token = self.mint.access(lifetime);
        books.keep_access(&access_token, family);
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
    pub fn note(&self, refused: &Refused, where_: &str) {
        if refused.breach == Breach::Yes {
            self.violation(format!("{where_}: {}: {}", refused.error, refused.why));
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
        Truth {
            logins: books.logins.len(),
            refreshes: books.granted.get(grant::REFRESH).copied().unwrap_or(0),
            rotations: books.rotations,
            reuses: books.reuses.clone(),
            granted: books.granted.clone(),
            live_grants: {
                let refresh = books.refresh.values();
                let live = refresh.filter(|r| !r.spent && alive(r.family));
                live.map(|r| r.family)
                    .collect::<std::collections::BTreeSet<_>>()
                    .len()
            },
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
        told.then(|| issued.lifetime.as_secs())
    }
}

impl Books {
    fn count(&mut self, grant: &str) {
        *self.granted.entry(grant.to_owned()).or_default() += 1;
    }

    fn keep_access(&mut self, token: &str, family: Option<Family>) {
        let access = Access {
            family,
            end: Instant::now() + self.lifetime,
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

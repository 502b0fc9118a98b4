//! Owns logins on another device: the codes, the person who says yes or no, and the pace of the
//! polls (RFC 8628).

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::mint::{Issued, random};
use super::request::{Parameters, Refused};
use super::settings::{Settings, grant};

/// How much earlier than the interval a poll may come: timers and networks are not exact.
const SLACK: Duration = Duration::from_millis(50);
/// What `slow_down` adds to the interval (section 3.5).
const SLOWER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Pending,
    Approved,
    Denied,
    /// Its time has run out.
    Expired,
    /// The tokens are handed out.
    Done,
}

/// What the device is told.
#[derive(Clone)]
pub struct Opened {
    pub device_code: String,
    pub user_code: String,
    pub interval: Duration,
}

struct Device {
    opened: Opened,
    scope: String,
    decision: Decision,
    end: Instant,
    polled: Option<Instant>,
    polls: usize,
    slow_down: bool,
}

#[derive(Default)]
pub struct Devices {
    all: Mutex<Vec<Device>>,
    changed: Notify,
}

impl Devices {
    /// A new login that waits for its person.
    pub fn open(&self, settings: &Settings, scope: &str) -> Opened {
        let opened = Opened {
            device_code: random(40),
            user_code: format!("{}-{}", random(4), random(4)).to_uppercase(),
            interval: settings.device_interval,
        };
        self.all.lock().unwrap().push(Device {
            opened: opened.clone(),
            scope: scope.to_owned(),
            decision: Decision::Pending,
            end: Instant::now() + settings.device_lifetime,
            polled: None,
            polls: 0,
            slow_down: false,
        });
        self.changed.notify_waiters();
        opened
    }

    /// Answers an authorization request (section 3.2).
    pub fn begin(&self, settings: &Settings, sent: &Parameters) -> Value {
        let opened = self.open(settings, sent.get("scope").unwrap_or(&settings.scope));
        let page = format!("https://{}/device", settings.names[0]);
        json!({
            "device_code": opened.device_code,
            "user_code": opened.user_code,
            "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={}", opened.user_code),
            "expires_in": settings.device_lifetime.as_secs(),
            "interval": opened.interval.as_secs(),
        })
    }

    /// Answers one poll (sections 3.4 and 3.5) with what the login is for, once the person said yes.
    pub fn poll(&self, device_code: &str, user_code: Option<&str>) -> Result<String, Refused> {
        let answer = {
            let mut all = self.all.lock().unwrap();
            let mut found = all.iter_mut();
            let found = found.find(|device| {
                device.opened.device_code == device_code
                    && user_code.is_none_or(|code| device.opened.user_code == code)
            });
            match found {
                Some(device) => device.poll(),
                None => Err(Refused::breach(
                    "invalid_grant",
                    "a device code that was never issued",
                )),
            }
        };
        self.changed.notify_waiters();
        answer
    }

    pub fn redeem(&self, sent: &Parameters, ledger: &Ledger) -> Result<Issued, Refused> {
        let scope = self.poll(sent.need("device_code"), None)?;
        Ok(ledger.log_in(grant::DEVICE, &scope, None).1)
    }

    #[track_caller]
    pub fn decide(&self, user_code: &str, decision: Decision) {
        self.change(user_code, |device| device.decision = decision);
    }

    /// The next poll is told to slow down.
    #[track_caller]
    pub fn slow_down(&self, user_code: &str) {
        self.change(user_code, |device| device.slow_down = true);
    }

    #[track_caller]
    fn change(&self, user_code: &str, how: impl FnOnce(&mut Device)) {
        let mut all = self.all.lock().unwrap();
        let found = all
            .iter_mut()
            .find(|device| device.opened.user_code == user_code);
        how(found.unwrap_or_else(|| panic!("no device shows {user_code}")));
    }

    /// Waits until the newest device has polled so often; returns its user code.
    pub async fn wait_for_polls(&self, polls: usize) -> String {
        let found = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(code) = self.newest(polls) {
                    return code;
                }
                changed.await;
            }
        });
        found.await.expect("a device that polls")
    }

    fn newest(&self, polls: usize) -> Option<String> {
        let all = self.all.lock().unwrap();
        let newest = all.last().filter(|device| device.polls >= polls);
        newest.map(|device| device.opened.user_code.clone())
    }
}

impl Device {
    fn poll(&mut self) -> Result<String, Refused> {
        let now = Instant::now();
        let since = self.polled.replace(now).map(|last| now - last);
        self.polls += 1;
        if since.is_some_and(|since| since + SLACK < self.opened.interval) {
            let why = format!(
                "polled after {since:?}, the interval is {:?}",
                self.opened.interval
            );
            self.opened.interval += SLOWER;
            return Err(Refused::breach("slow_down", why));
        }
        if std::mem::take(&mut self.slow_down) {
            self.opened.interval += SLOWER;
            return Err(Refused::no("slow_down", "the provider is busy"));
        }
        match self.decision {
            Decision::Done => Err(Refused::breach(
                "invalid_grant",
                "the device code was used before",
            )),
            Decision::Expired => Err(Refused::no("expired_token", "the device code has expired")),
            _ if now > self.end => Err(Refused::no("expired_token", "the device code has expired")),
            Decision::Denied => Err(Refused::no("access_denied", "the person said no")),
            Decision::Pending => Err(Refused::no(
                "authorization_pending",
                "nobody has answered yet",
            )),
            Decision::Approved => {
                self.decision = Decision::Done;
                Ok(self.scope.clone())
            }
        }
    }
}

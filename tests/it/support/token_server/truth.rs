//! Owns what a test asks a provider in the end: what is live, what was spent, what was done wrong.

use std::collections::BTreeMap;

/// What a provider knows, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Logins that came to a grant: codes, devices, and those that the test made.
    pub logins: usize,
    /// Refresh tokens that were accepted, whether or not the answer arrived.
    pub refreshes: usize,
    /// Refresh tokens that were spent and replaced.
    pub rotations: usize,
    /// Refresh tokens that were not accepted, whatever the reason: more than a few are a loop.
    pub refused: usize,
    /// Logins that a client ended.
    pub revocations: usize,
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

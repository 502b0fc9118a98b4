//! Owns what other intercepting proxies have in common here: an authority of their own, and a way for agents.

use std::path::{Path, PathBuf};

use crate::certs::{self, Certificates};
use crate::client;
use crate::origin::SECRET;
use crate::process::{Process, free_address};
use crate::report::Column;
use crate::subject::{Subject, Way};
use crate::{hudsucker, mitmproxy, squid};

/// Starts one that nobody has used yet, or says why it cannot be.
pub type Start = fn(&Site<'_>) -> Result<Peer, String>;

/// Everyone tollgate is compared with besides nginx, by the name they are reported by.
pub const PEERS: &[(&str, Start)] = &[
    ("hudsucker", hudsucker::start),
    ("squid", squid::start),
    ("mitmproxy", mitmproxy::start),
];

/// A running proxy that ends TLS itself and gives one host the secret.
pub struct Peer {
    pub process: Process,
    pub subject: Subject,
    /// What it calls itself, with its version.
    pub title: String,
    /// So many times fewer requests are a measure of it.
    pub slower: usize,
}

/// What one of them is given.
pub struct Site<'b> {
    /// Its own directory; it exists.
    pub dir: &'b Path,
    pub origin: &'b Certificates,
    /// The host whose requests get the secret.
    pub host: &'static str,
    /// Where the origin listens on this machine.
    pub port: u16,
}

impl Site<'_> {
    /// Writes an authority for it to sign leafs with: P-256 for all, since what signs decides what a
    /// handshake costs.
    pub fn authority(&self) -> certs::Authority {
        certs::authority(self.dir, "own-ca", "A proxy of a benchmark")
    }

    /// Writes the secret.
    pub fn secret(&self) -> PathBuf {
        let path = self.dir.join("secret");
        std::fs::write(&path, SECRET).unwrap();
        path
    }

    /// Where what it prints goes.
    pub fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    /// How agents get to the host by way of a proxy whose leafs `authority` signs. Its address is free.
    pub fn subject(&self, column: Column, authority: &Path) -> Subject {
        Subject {
            column,
            address: free_address(),
            way: Way::Connect(self.port),
            key: "a-key-that-the-proxy-replaces",
            tls: client::tls(authority),
            authorization: None,
        }
    }
}

/// A file that `run.sh` made for one of them.
pub fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/peers")
        .join(path)
}

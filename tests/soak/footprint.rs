//! Owns what a process has and holds, measured while nothing is asked of it.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use super::support::proxy::Proxy;

/// From proc(5), and from its own gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Footprint {
    pub resident_kib: usize,
    pub threads: usize,
    pub files: usize,
    /// Of the files, connections to origins that are kept for later.
    pub kept: usize,
    /// Connections of agents.
    pub agents: usize,
    /// Exchanges.
    pub in_flight: usize,
}

impl Footprint {
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            resident_kib: number("VmRSS:"),
            threads: number("Threads:"),
            files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            ..Self::default()
        }
    }

    /// Once nothing is in flight and idle threads have ended (Tokio keeps blocking ones for 10 s).
    pub async fn at_rest(proxy: &Proxy) -> Self {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut quiet = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut now = Self::of(proxy.pid());
            now.in_flight = gauge(proxy, "tollgate_requests_in_flight").await;
            now.agents = gauge(proxy, "tollgate_open_connections").await;
            now.kept = gauge(proxy, "tollgate_upstream_open_connections").await;
            quiet = if now.in_flight + now.agents == 0 {
                quiet + 1
            } else {
                0
            };
            if quiet >= 12 || Instant::now() >= deadline {
                return now;
            }
        }
    }
}

/// The sum of a family.
async fn gauge(proxy: &Proxy, family: &str) -> usize {
    let text = proxy.admin("GET", "/metrics").await.text;
    let series = text.lines().filter(|line| {
        line.strip_prefix(family)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    let values = series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    values.sum::<f64>() as usize
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MiB resident, {} threads, {} files ({} kept connections), {} agents, {} in flight",
            self.resident_kib as f64 / 1024.0,
            self.threads,
            self.files,
            self.kept,
            self.agents,
            self.in_flight
        )
    }
}

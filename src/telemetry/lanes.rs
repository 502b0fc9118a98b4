//! Owns the counters of each agent on each host, and how many there may be: a counter is looked up by
//! name once, and found by agent and host from then on, without a lock.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec};

use super::access_log::Verdict;
use crate::types::agent::Agent;
use crate::types::host::HostPattern;
use crate::types::map::{HashMap, HashSet};

/// What is counted under this name is what came after a cap, or what no rule names.
pub const OTHER: &str = "other";
/// Agents with counters of their own.
pub const MOST_AGENTS: usize = 256;
/// Hosts, as rules name them, with counters of their own.
pub const MOST_HOSTS: usize = 256;
/// Pairs of both. Past that a new pair is counted under `other` hosts.
const MOST_LANES: usize = 4096;

/// Names that become values of a label, up to a number.
pub(super) struct Bounded {
    known: ArcSwap<HashSet<Arc<str>>>,
    adding: Mutex<()>,
    most: usize,
}

impl Bounded {
    pub(super) fn new(most: usize) -> Self {
        Self {
            known: ArcSwap::default(),
            adding: Mutex::new(()),
            most,
        }
    }

    /// The name itself if there was room for it when it first came, else `other`.
    pub(super) fn label<'n>(&self, name: &'n str) -> &'n str {
        if self.known.load().contains(name) {
            return name;
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.load_full();
        if known.contains(name) {
            return name;
        }
        if known.len() >= self.most {
            return OTHER;
        }
        let mut more = HashSet::clone(&known);
        more.insert(name.into());
        self.known.store(Arc::new(more));
        name
    }
}

/// The counters of every agent on every host.
pub(super) struct Lanes {
    requests: IntCounterVec,
    agents: Bounded,
    hosts: Bounded,
    open: ArcSwap<Open>,
    opening: Mutex<()>,
}

#[derive(Clone, Default)]
struct Open {
    by_agent: HashMap<Option<Agent>, HashMap<Option<HostPattern>, Arc<Lane>>>,
    count: usize,
}

/// The counters of one agent on one host, by what was decided and by the class of the status.
#[derive(Default)]
pub(super) struct Lane {
    agent: Arc<str>,
    host: Arc<str>,
    counters: [[OnceLock<IntCounter>; CODES.len()]; VERDICTS.len()],
}

const VERDICTS: [&str; 3] = ["allow", "deny", "report"];
/// The class of a status; the first is for none.
const CODES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Lanes {
    pub(super) fn new(requests: IntCounterVec) -> Self {
        Self {
            requests,
            agents: Bounded::new(MOST_AGENTS),
            hosts: Bounded::new(MOST_HOSTS),
            open: ArcSwap::default(),
            opening: Mutex::new(()),
        }
    }

    /// An exchange of this agent ended so. `host` is how the rules name the host.
    pub(super) fn count(
        &self,
        agent: Option<&Agent>,
        host: Option<&HostPattern>,
        verdict: Verdict,
        status: u16,
    ) {
        let row = match verdict {
            Verdict::Allow => 0,
            Verdict::Deny => 1,
            Verdict::Report => 2,
        };
        let column = match status / 100 {
            class @ 1..=5 => usize::from(class),
            _ => 0,
        };
        // Cloning a name is cheap: it is shared.
        let open = self.open.load();
        let found = open.by_agent.get(&agent.cloned());
        let found = found.and_then(|hosts| hosts.get(&host.cloned()));
        match found {
            Some(lane) => self.counter(lane, row, column).inc(),
            None => self.counter(&self.lane(agent, host), row, column).inc(),
        }
    }

    /// The label of an agent in other metrics, under the same cap.
    pub(super) fn agent<'n>(&self, name: &'n str) -> &'n str {
        self.agents.label(name)
    }

    /// The label of a host in other metrics, under the same cap.
    pub(super) fn host(&self, host: Option<&HostPattern>) -> String {
        let Some(host) = host else {
            return OTHER.to_owned();
        };
        let host = host.to_string();
        self.hosts.label(&host).to_owned()
    }

    fn counter<'l>(&self, lane: &'l Lane, row: usize, column: usize) -> &'l IntCounter {
        lane.counters[row][column].get_or_init(|| {
            self.requests.with_label_values(&[
                &*lane.agent,
                &*lane.host,
                VERDICTS[row],
                CODES[column],
            ])
        })
    }

    fn lane(&self, agent: Option<&Agent>, host: Option<&HostPattern>) -> Arc<Lane> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.open.load_full();
        let key = (agent.cloned(), host.cloned());
        let found = open.by_agent.get(&key.0).and_then(|h| h.get(&key.1));
        if let Some(lane) = found {
            return lane.clone();
        }
        let name = agent.map_or("", Agent::name);
        let room = open.count < MOST_LANES;
        let lane = Arc::new(Lane {
            agent: self.agents.label(name).into(),
            host: match room {
                true => self.host(host).into(),
                false => OTHER.into(),
            },
            ..Lane::default()
        });
        if room {
            let mut more = Open::clone(&open);
            more.by_agent
                .entry(key.0)
                .or_default()
                .insert(key.1, lane.clone());
            more.count += 1;
            self.open.store(Arc::new(more));
        }
        lane
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Opts;
    use prometheus::core::Collector as _;

    fn lanes() -> Lanes {
        let labels = ["agent", "host", "decision", "code"];
        Lanes::new(IntCounterVec::new(Opts::new("n", "n"), &labels).unwrap())
    }

    fn value(lanes: &Lanes, labels: [&str; 4]) -> u64 {
        lanes.requests.with_label_values(&labels).get()
    }

    fn series(lanes: &Lanes) -> usize {
        lanes.requests.collect()[0].get_metric().len()
    }

    #[test]
    fn exchanges_are_counted_by_agent_host_decision_and_class() {
        let lanes = lanes();
        let agent = Agent::parse("team-a/scan").unwrap();
        let host = HostPattern::parse("*.example.com").unwrap();
        for status in [200, 204, 404, 0, 999] {
            lanes.count(Some(&agent), Some(&host), Verdict::Allow, status);
        }
        lanes.count(None, None, Verdict::Deny, 407);
        lanes.count(Some(&agent), None, Verdict::Report, 502);
        let on = |decision, code| value(&lanes, ["team-a/scan", "*.example.com", decision, code]);
        assert_eq!(on("allow", "2xx"), 2);
        assert_eq!(on("allow", "4xx"), 1);
        assert_eq!(on("allow", "none"), 2);
        assert_eq!(value(&lanes, ["", "other", "deny", "4xx"]), 1);
        assert_eq!(value(&lanes, ["team-a/scan", "other", "report", "5xx"]), 1);
    }

    #[test]
    fn agents_and_hosts_past_the_cap_are_counted_together() {
        let lanes = lanes();
        let host = HostPattern::parse("a.example.com").unwrap();
        for index in 0..MOST_AGENTS + 50 {
            let agent = Agent::parse(&format!("agent-{index}")).unwrap();
            lanes.count(Some(&agent), Some(&host), Verdict::Allow, 200);
        }
        assert_eq!(series(&lanes), MOST_AGENTS + 1);
        assert_eq!(value(&lanes, [OTHER, "a.example.com", "allow", "2xx"]), 50);
        let agent = Agent::parse("agent-0").unwrap();
        for index in 0..MOST_HOSTS + 20 {
            let host = HostPattern::parse(&format!("h{index}.example.com")).unwrap();
            lanes.count(Some(&agent), Some(&host), Verdict::Allow, 200);
        }
        assert_eq!(value(&lanes, ["agent-0", OTHER, "allow", "2xx"]), 21);
    }

    #[test]
    fn pairs_past_the_cap_are_counted_under_other_hosts() {
        let lanes = lanes();
        let (agents, hosts) = (100, 100);
        for agent in 0..agents {
            let agent = Agent::parse(&format!("agent-{agent}")).unwrap();
            for host in 0..hosts {
                let host = HostPattern::parse(&format!("h{host}.example.com")).unwrap();
                lanes.count(Some(&agent), Some(&host), Verdict::Allow, 200);
            }
        }
        assert!(series(&lanes) <= MOST_LANES + agents);
        let rest = value(&lanes, ["agent-99", OTHER, "allow", "2xx"]);
        assert_eq!(rest, hosts as u64);
    }
}

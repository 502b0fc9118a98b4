//! Owns the agents: each does one act after another, by chance, and counts what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::acts::{ACTS, Came};
use super::chance::Chance;
use super::world::{Stage, World};

/// At most this long for one act, whatever happens to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What acts came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub fine: BTreeMap<&'static str, usize>,
    /// Ended as the fault that was asked for wants it.
    pub injected: BTreeMap<&'static str, usize>,
    /// Nobody asked for it. The first few.
    pub unexpected: Vec<String>,
    pub failures: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Work,
    Rest,
    End,
}

pub struct Crowd {
    pace: watch::Sender<Pace>,
    /// Agents that stand still.
    resting: watch::Sender<usize>,
    tally: Arc<Mutex<Tally>>,
    agents: JoinSet<()>,
    count: usize,
}

impl Crowd {
    pub fn gather(count: usize, chance: &mut Chance, world: &World) -> Self {
        let (pace, seen) = watch::channel(Pace::Work);
        let (resting, _) = watch::channel(0);
        let tally = Arc::<Mutex<Tally>>::default();
        let mut agents = JoinSet::new();
        for _ in 0..count {
            let agent = Agent {
                chance: chance.split(),
                stage: world.stage.clone(),
                pace: seen.clone(),
                resting: resting.clone(),
                tally: tally.clone(),
            };
            agents.spawn(agent.work());
        }
        Self {
            pace,
            resting,
            tally,
            agents,
            count,
        }
    }

    /// Waits until nobody does anything.
    pub async fn rest(&self) {
        self.pace.send_replace(Pace::Rest);
        let mut resting = self.resting.subscribe();
        let all = resting.wait_for(|resting| *resting == self.count);
        let all = tokio::time::timeout(2 * PATIENCE, all).await;
        assert!(all.is_ok(), "an agent hangs");
    }

    pub fn go_on(&self) {
        self.pace.send_replace(Pace::Work);
    }

    pub async fn end(self) -> Tally {
        self.pace.send_replace(Pace::End);
        self.agents.join_all().await;
        Arc::try_unwrap(self.tally).unwrap().into_inner().unwrap()
    }

    pub fn summary(&self) -> String {
        self.tally.lock().unwrap().summary()
    }
}

impl Tally {
    pub fn summary(&self) -> String {
        let sum = |of: &BTreeMap<&'static str, usize>| of.values().sum::<usize>();
        let (fine, injected) = (sum(&self.fine), sum(&self.injected));
        format!(
            "{fine} fine, {injected} made to fail, {} unexpected",
            self.failures
        )
    }

    pub fn table(&self) -> String {
        let mut table = String::new();
        for (title, of) in [("fine", &self.fine), ("made to fail", &self.injected)] {
            let all: Vec<String> = of
                .iter()
                .map(|(act, count)| format!("{act} {count}"))
                .collect();
            writeln!(table, "{title}: {}", all.join(", ")).unwrap();
        }
        table
    }
}

struct Agent {
    chance: Chance,
    stage: Arc<Stage>,
    pace: watch::Receiver<Pace>,
    resting: watch::Sender<usize>,
    tally: Arc<Mutex<Tally>>,
}

impl Agent {
    async fn work(mut self) {
        loop {
            let pace = *self.pace.borrow_and_update();
            match pace {
                Pace::Work => self.act().await,
                Pace::Rest => {
                    self.resting.send_modify(|resting| *resting += 1);
                    self.pace.changed().await.unwrap();
                    self.resting.send_modify(|resting| *resting -= 1);
                }
                Pace::End => return,
            }
        }
    }

    async fn act(&mut self) {
        let (name, act) = self.chance.one_of(ACTS);
        let came = tokio::time::timeout(PATIENCE, act(self.stage.clone(), self.chance.split()));
        // A panic in an act would end the agent: it must not be quiet.
        let came = tokio::spawn(came).await;
        let mut tally = self.tally.lock().unwrap();
        let wrong = match came {
            Ok(Ok(Came::Fine)) => return *tally.fine.entry(name).or_default() += 1,
            Ok(Ok(Came::AsMade)) => return *tally.injected.entry(name).or_default() += 1,
            Ok(Ok(Came::Wrong(what))) => what,
            Ok(Err(_)) => format!("not done within {PATIENCE:?}"),
            Err(error) => error.to_string(),
        };
        tally.failures += 1;
        if tally.unexpected.len() < 20 {
            tally.unexpected.push(format!("{name}: {wrong}"));
        }
    }
}

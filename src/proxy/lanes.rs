//! Owns over which of several connections a request goes to an HTTP/2 origin.
//!
//! A client of the library keeps one for each origin, on which the origin takes so many streams and no more; a
//! further request waits for one of them to end. So there are several clients, lanes, for as long as the streams
//! of the first do not suffice: nobody waits because somebody else has taken them all.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::under_way::{Count, Counted, UnderWay};
use crate::types::host::Authority;

/// The lanes to all origins of one way to reach them.
pub struct Lanes<C> {
    make: Box<dyn Fn() -> C + Send + Sync>,
    stated: Stated,
    groups: Box<[Group<C>]>,
    under_way: UnderWay,
    growing: Mutex<()>,
}

/// Those of the origins whose names fall together. They share the count, not the connections: at worst one has a
/// lane more than it needs.
type Group<C> = ArcSwap<Vec<Arc<Lane<C>>>>;

/// One client, and how many requests it has under way.
pub struct Lane<C> {
    /// The client.
    pub client: C,
    count: Arc<Count>,
}

/// How many streams origins take on a connection, as they say themselves. Cloning is shallow.
#[derive(Clone)]
pub struct Stated(Arc<Numbers>);

struct Numbers {
    hasher: RandomState,
    /// Zero where nothing was said yet.
    least: [AtomicU32; GROUPS],
}

const GROUPS: usize = 128;
/// Until an origin says: what it ought to take at least (RFC 9113, section 6.5.2), and what the library supposes.
const SUPPOSED: u32 = 100;
/// Of one group. What one agent may have under way does not use them up unless an origin takes very little.
const MOST_LANES: usize = 256;

impl Stated {
    /// Nothing was said yet.
    pub fn new() -> Self {
        Self(Arc::new(Numbers {
            hasher: RandomState::default(),
            least: [const { AtomicU32::new(0) }; GROUPS],
        }))
    }

    /// `authority` takes so many on a connection; one of HTTP/1.1, which is not shared, any number. The least that
    /// was ever said counts, so that a request never waits at any of an origin's machines.
    pub fn tell(&self, authority: &Authority, streams: u32) {
        let streams = streams.max(1);
        let lower = |least: u32| (least == 0 || streams < least).then_some(streams);
        self.0.least[self.group(authority)]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower)
            .ok();
    }

    fn group(&self, authority: &Authority) -> usize {
        self.0.hasher.hash_one(authority) as usize % GROUPS
    }

    fn of(&self, group: usize) -> usize {
        match self.0.least[group].load(Ordering::Relaxed) {
            0 => SUPPOSED as usize,
            least => least as usize,
        }
    }
}

impl Default for Stated {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Lanes<C> {
    /// Lanes whose clients are made by `make`, in which no more requests go than is `stated`.
    pub fn new(
        stated: Stated,
        under_way: UnderWay,
        make: impl Fn() -> C + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Box::new(make),
            stated,
            groups: (0..GROUPS).map(|_| Group::default()).collect(),
            under_way,
            growing: Mutex::new(()),
        }
    }

    /// A lane to `authority` with a stream that is free, and the claim to that stream.
    pub fn enter(&self, authority: &Authority) -> (Arc<Lane<C>>, Counted) {
        let group = self.stated.group(authority);
        let most = self.stated.of(group);
        if let Some(entered) = first_free(&self.groups[group].load(), most) {
            return entered;
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = self.groups[group].load_full();
        // Somebody else may have made one meanwhile.
        if let Some(entered) = first_free(&lanes, most) {
            return entered;
        }
        if let Some(entered) = least_taken(&lanes).filter(|_| lanes.len() >= MOST_LANES) {
            return entered;
        }
        self.trim();
        let lane = Arc::new(Lane::new((self.make)(), &self.under_way));
        let counted = lane.join();
        let mut more = Vec::clone(&self.groups[group].load());
        more.push(lane.clone());
        self.groups[group].store(Arc::new(more));
        (lane, counted)
    }

    /// Whether requests to `authority` may have a connection in common: it speaks HTTP/2, as far as is known.
    pub fn shares(&self, authority: &Authority) -> bool {
        self.stated.of(self.stated.group(authority)) < u32::MAX as usize
    }

    /// Uses no client again that may have a connection to `authority`. What is under way on one goes on; origins
    /// whose names fall together with its own are connected to anew.
    pub fn forget(&self, authority: &Authority) {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let group = self.stated.group(authority);
        self.groups[group].store(Arc::default());
    }

    /// Lets those go that nobody needs any more, so that a crowd leaves nothing behind. Whoever has just taken
    /// such a lane keeps it.
    fn trim(&self) {
        for group in &self.groups {
            let lanes = group.load();
            let needed = lanes.iter().rposition(|lane| lane.count.here() > 0);
            let kept = needed.map_or(1, |last| last + 1);
            if kept < lanes.len() {
                group.store(Arc::new(lanes[..kept].to_vec()));
            }
        }
    }
}

impl<C> Lane<C> {
    /// A lane with nothing under way.
    pub fn new(client: C, under_way: &UnderWay) -> Self {
        Self {
            client,
            count: Arc::new(Count::of(under_way)),
        }
    }

    /// One more, however many there are.
    pub fn join(&self) -> Counted {
        Counted::new(&self.count)
    }
}

type Entered<C> = (Arc<Lane<C>>, Counted);

fn first_free<C>(lanes: &[Arc<Lane<C>>], most: usize) -> Option<Entered<C>> {
    lanes.iter().find_map(|lane| {
        let counted = Counted::within(&lane.count, most)?;
        Some((lane.clone(), counted))
    })
}

fn least_taken<C>(lanes: &[Arc<Lane<C>>]) -> Option<Entered<C>> {
    let lane = lanes.iter().min_by_key(|lane| lane.count.here())?;
    Some((lane.clone(), lane.join()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::types::host::Host;

    fn authority(name: &str) -> Authority {
        Authority::new(Host::parse(name).unwrap(), 443)
    }

    /// Each client is its number.
    fn lanes(stated: &Stated) -> Lanes<usize> {
        let next = AtomicUsize::new(0);
        Lanes::new(stated.clone(), UnderWay::new(0), move || {
            next.fetch_add(1, Ordering::Relaxed)
        })
    }

    #[test]
    fn the_lanes_of_one_origin_can_be_forgotten_and_those_of_others_stay() {
        let stated = Stated::new();
        let doubtful = authority("a.example.com");
        let apart = |name: &Authority| stated.group(name) != stated.group(&doubtful);
        let mut names = (0..).map(|number| authority(&format!("b{number}.example.com")));
        let other = names.find(apart).unwrap();
        let lanes = lanes(&stated);
        let of = |name: &Authority| lanes.enter(name).0.client;
        let before = (of(&doubtful), of(&other));
        lanes.forget(&doubtful);
        assert_ne!(of(&doubtful), before.0);
        assert_eq!(of(&other), before.1);
    }

    #[test]
    fn a_lane_is_opened_when_the_others_are_full_and_the_first_is_preferred() {
        let stated = Stated::new();
        let origin = authority("a.example.com");
        stated.tell(&origin, 2);
        stated.tell(&origin, u32::MAX);
        let lanes = lanes(&stated);
        let mut held: Vec<_> = (0..5).map(|_| lanes.enter(&origin)).collect();
        let taken = |held: &[Entered<usize>]| held.iter().map(|(lane, _)| lane.client).collect();
        let clients: Vec<usize> = taken(&held);
        assert_eq!(clients, [0, 0, 1, 1, 2]);
        held.remove(0);
        held.push(lanes.enter(&origin));
        let clients: Vec<usize> = taken(&held);
        assert_eq!(clients, [0, 1, 1, 2, 0]);
    }

    #[test]
    fn an_origin_that_was_not_heard_is_supposed_to_take_what_it_should() {
        let lanes = lanes(&Stated::new());
        let origin = authority("a.example.com");
        let held: Vec<_> = (0..=SUPPOSED).map(|_| lanes.enter(&origin)).collect();
        assert!(held[..100].iter().all(|(lane, _)| lane.client == 0));
        assert_eq!(held[100].0.client, 1);
    }

    #[test]
    fn an_origin_without_shared_connections_has_one_lane() {
        let stated = Stated::new();
        let origin = authority("a.example.com");
        stated.tell(&origin, u32::MAX);
        let lanes = lanes(&stated);
        let held: Vec<_> = (0..1000).map(|_| lanes.enter(&origin)).collect();
        assert!(held.iter().all(|(lane, _)| lane.client == 0));
    }

    #[test]
    fn lanes_have_a_bound_behind_which_the_least_taken_is_shared() {
        let stated = Stated::new();
        let origin = authority("a.example.com");
        stated.tell(&origin, 0);
        let lanes = lanes(&stated);
        let held: Vec<_> = (0..MOST_LANES * 2).map(|_| lanes.enter(&origin)).collect();
        let most = held.iter().map(|(lane, _)| lane.client).max();
        assert_eq!(most, Some(MOST_LANES - 1));
        assert!(held.iter().all(|(lane, _)| lane.count.here() == 2));
    }

    #[test]
    fn lanes_that_a_crowd_has_left_go() {
        let stated = Stated::new();
        let crowded = authority("a.example.com");
        stated.tell(&crowded, 1);
        let lanes = lanes(&stated);
        let group = stated.group(&crowded);
        let mut names = (0..).map(|number| authority(&format!("b{number}.example.com")));
        let next = names.find(|name| stated.group(name) != group).unwrap();
        let held: Vec<_> = (0..20).map(|_| lanes.enter(&crowded)).collect();
        assert_eq!(lanes.groups[group].load().len(), 20);
        drop(held);
        let _more: Vec<_> = (0..=SUPPOSED).map(|_| lanes.enter(&next)).collect();
        let left = lanes.groups[group].load().len();
        assert!(left <= 2, "{left}");
    }

    #[test]
    fn threads_that_come_together_find_no_lane_with_more_than_is_stated() {
        let stated = Stated::new();
        let origin = authority("a.example.com");
        stated.tell(&origin, 2);
        let lanes = lanes(&stated);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..3 {
                        let (lane, _counted) = lanes.enter(&origin);
                        assert!((1..=2).contains(&lane.count.here()));
                    }
                });
            }
        });
        let all = lanes.groups[stated.group(&origin)].load();
        assert!((1..=2).contains(&all.len()), "{}", all.len());
        assert!(all.iter().all(|lane| lane.count.here() == 0));
    }
}

//! Owns how many connections and HTTP/2 streams agents have: in all, of one agent, and of one address
//! as long as nobody there has said who it is. What else is one agent's share goes with them.
//!
//! A connection takes its place when it is accepted and keeps it until its last byte, as a tunnel or an
//! upgraded stream as well. It counts for its address until its first request names an agent, and for
//! that agent from then on.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::room::Room;
use crate::types::agent::Agent;
use crate::types::limits::{ConnectionLimits, StreamLimits};
use crate::types::reached::{Limit, Reached};

/// Connections that are told why they are turned away, at once. Telling takes a moment, and further
/// ones are closed without it: whoever opens so many does not listen.
const MOST_TOLD: usize = 64;

/// The places of a process. Cloning is shallow.
#[derive(Clone)]
pub struct Places(Arc<Inner>);

struct Inner {
    connections: ConnectionLimits,
    streams: StreamLimits,
    bodies: Bodies,
    open: AtomicUsize,
    streaming: AtomicUsize,
    agents: Mutex<HashMap<Agent, Arc<Share>>>,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    told: Arc<Semaphore>,
}

/// The memory for bodies that are read whole.
pub struct Bodies {
    /// That of all agents.
    pub room: Arc<Room>,
    /// How many octets of it one agent may have.
    pub per_agent: u64,
}

/// What one agent has.
struct Share {
    /// Changed under the lock of the map alone.
    connections: AtomicUsize,
    streams: AtomicUsize,
    bodies: Arc<Room>,
}

impl Share {
    fn of(bodies: &Bodies) -> Arc<Self> {
        let Bodies { room, per_agent } = bodies;
        let bodies = match *per_agent < room.most() {
            true => Arc::new(room.share(*per_agent)),
            // What all may have, it may.
            false => room.clone(),
        };
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            bodies,
        })
    }
}

/// The place of one connection. Dropping it frees it.
pub struct Place {
    places: Arc<Inner>,
    /// Whom it counts for until it has an agent.
    address: IpAddr,
    agent: OnceLock<(Agent, Arc<Share>)>,
}

/// The place of one stream on a connection. Dropping it frees it.
pub struct StreamPlace {
    place: Arc<Place>,
    /// It counts for the connection's agent.
    has_agent: bool,
}

impl Places {
    /// Places within these limits, none of them taken.
    pub fn new(connections: ConnectionLimits, streams: StreamLimits, bodies: Bodies) -> Self {
        Self(Arc::new(Inner {
            connections,
            streams,
            bodies,
            open: AtomicUsize::new(0),
            streaming: AtomicUsize::new(0),
            agents: Mutex::default(),
            addresses: Mutex::default(),
            told: Arc::new(Semaphore::new(MOST_TOLD)),
        }))
    }

    /// A place for a connection from `peer`; for `agent`, where that is known before it says anything.
    pub fn take(&self, peer: IpAddr, agent: Option<&Agent>) -> Result<Place, Reached> {
        let inner = &self.0;
        let most = inner.connections.total;
        if !add(&inner.open, most) {
            return Err(Limit::Connections.count(most));
        }
        let address = network(peer);
        let taken = match agent {
            Some(agent) => inner
                .join(agent)
                .map(|share| OnceLock::from((agent.clone(), share))),
            None => inner.arrive(address).map(|()| OnceLock::new()),
        };
        let agent = taken.inspect_err(|_| {
            inner.open.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(Place {
            places: inner.clone(),
            address,
            agent,
        })
    }

    /// The right to tell one connection why it is turned away, if not too many are being told.
    pub fn telling(&self) -> Option<OwnedSemaphorePermit> {
        self.0.told.clone().try_acquire_owned().ok()
    }
}

impl Inner {
    fn join(&self, agent: &Agent) -> Result<Arc<Share>, Reached> {
        let mut agents = locked(&self.agents);
        let share = agents
            .entry(agent.clone())
            .or_insert_with(|| Share::of(&self.bodies));
        let most = self.connections.per_agent;
        if !add(&share.connections, most) {
            return Err(Limit::AgentConnections.count(most));
        }
        Ok(share.clone())
    }

    fn leave(&self, agent: &Agent, share: &Share) {
        let mut agents = locked(&self.agents);
        if share.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            agents.remove(agent);
        }
    }

    fn arrive(&self, address: IpAddr) -> Result<(), Reached> {
        let mut addresses = locked(&self.addresses);
        let open = addresses.entry(address).or_default();
        let most = self.connections.unidentified_per_address;
        if *open >= most {
            return Err(Limit::AddressConnections.count(most));
        }
        *open += 1;
        Ok(())
    }

    fn depart(&self, address: IpAddr) {
        let mut addresses = locked(&self.addresses);
        match addresses.get_mut(&address) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                addresses.remove(&address);
            }
        }
    }
}

impl Place {
    /// From now on it counts for `agent`. It stays with the first that was named.
    pub fn belongs_to(&self, agent: &Agent) -> Result<(), Reached> {
        if self.agent.get().is_some() {
            return Ok(());
        }
        let share = self.places.join(agent)?;
        match self.agent.set((agent.clone(), share)) {
            Ok(()) => self.places.depart(self.address),
            // Another request on the connection was quicker.
            Err((agent, share)) => self.places.leave(&agent, &share),
        }
        Ok(())
    }

    /// The memory for bodies of its agent that are read whole, once it has one.
    pub fn bodies(&self) -> Option<&Arc<Room>> {
        self.agent.get().map(|(_, share)| &share.bodies)
    }

    /// A place for one more stream on it.
    pub fn stream(self: &Arc<Self>) -> Result<StreamPlace, Reached> {
        let StreamLimits {
            per_agent, total, ..
        } = self.places.streams;
        if !add(&self.places.streaming, total) {
            return Err(Limit::Streams.count(total));
        }
        let agent = self.agent.get();
        if let Some((_, share)) = agent
            && !add(&share.streams, per_agent)
        {
            self.places.streaming.fetch_sub(1, Ordering::Relaxed);
            return Err(Limit::AgentStreams.count(per_agent));
        }
        Ok(StreamPlace {
            place: self.clone(),
            has_agent: agent.is_some(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.agent.get() {
            Some((agent, share)) => self.places.leave(agent, share),
            None => self.places.depart(self.address),
        }
        self.places.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let agent = self.place.agent.get().filter(|_| self.has_agent);
        if let Some((_, share)) = agent {
            share.streams.fetch_sub(1, Ordering::Relaxed);
        }
        self.place.places.streaming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One more, unless there are `most` already.
fn add(count: &AtomicUsize, most: usize) -> bool {
    // Added first: of two who come at once to the last place, one must see the other.
    let before = count.fetch_add(1, Ordering::Relaxed);
    if before >= most {
        count.fetch_sub(1, Ordering::Relaxed);
    }
    before < most
}

fn locked<K, V>(map: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever has one address of IPv6 usually has the /64 around it (RFC 6177, section 2).
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(total: usize, per_agent: usize, per_address: usize) -> Places {
        let connections = ConnectionLimits {
            total,
            per_agent,
            unidentified_per_address: per_address,
            ..ConnectionLimits::default()
        };
        let streams = StreamLimits {
            per_connection: 10,
            per_agent: 2,
            total: 3,
        };
        let bodies = Bodies {
            room: Arc::new(Room::of(100)),
            per_agent: 60,
        };
        Places::new(connections, streams, bodies)
    }

    fn agent(name: &str) -> Agent {
        Agent::parse(name).unwrap()
    }

    #[test]
    fn no_agent_has_more_than_its_share_of_the_memory_for_bodies() {
        let places = places(10, 10, 10);
        let place = |name: &str| places.take(address(1), Some(&agent(name))).unwrap();
        let (one, same, other) = (place("one"), place("one"), place("other"));
        let unnamed = places.take(address(1), None).unwrap();
        assert!(unnamed.bodies().is_none());
        let room = |place: &Place| place.bodies().unwrap().clone();
        let held = room(&one).taken(60).unwrap();
        let refused = room(&same).hold(vec![0; 1].into()).unwrap_err();
        assert_eq!(refused, Limit::AgentReadBodies.bytes(60));
        let refused = room(&other).hold(vec![0; 41].into()).unwrap_err();
        assert_eq!(
            refused,
            Limit::ReadBodies.bytes(100),
            "there is no more in all"
        );
        assert!(room(&other).taken(40).is_some());
        drop(held);
        assert!(room(&other).taken(60).is_some());
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn refused(taken: Result<Place, Reached>) -> Limit {
        taken.err().unwrap().limit
    }

    #[test]
    fn a_place_is_free_again_once_its_connection_is_gone() {
        let places = places(2, 2, 2);
        let a = agent("a");
        for _ in 0..3 {
            let one = places.take(address(1), Some(&a)).unwrap();
            let two = places.take(address(1), None).unwrap();
            assert_eq!(refused(places.take(address(2), None)), Limit::Connections);
            two.belongs_to(&a).unwrap();
            drop((one, two));
        }
        assert!(locked(&places.0.agents).is_empty());
        assert!(locked(&places.0.addresses).is_empty());
        assert_eq!(places.0.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_has_not_said_who_it_is_counts_for_its_address_and_then_no_more() {
        let places = places(100, 100, 2);
        let one = places.take(address(1), None).unwrap();
        let _two = places.take(address(1), None).unwrap();
        assert_eq!(
            refused(places.take(address(1), None)),
            Limit::AddressConnections
        );
        let _other = places.take(address(2), None).unwrap();
        one.belongs_to(&agent("a")).unwrap();
        one.belongs_to(&agent("b")).unwrap();
        let _three = places.take(address(1), None).unwrap();
        assert_eq!(locked(&places.0.agents).len(), 1, "it stays with the first");
    }

    #[test]
    fn one_agent_leaves_room_for_others() {
        let places = places(100, 2, 100);
        let (a, b) = (agent("a"), agent("b"));
        let held = [(); 2].map(|()| places.take(address(1), Some(&a)).unwrap());
        assert_eq!(
            refused(places.take(address(1), Some(&a))),
            Limit::AgentConnections
        );
        let late = places.take(address(1), None).unwrap();
        let full = late.belongs_to(&a).unwrap_err();
        assert_eq!(full.limit, Limit::AgentConnections);
        late.belongs_to(&b).unwrap();
        drop(held);
        places.take(address(1), Some(&a)).unwrap();
    }

    #[test]
    fn streams_count_for_their_agent_on_all_its_connections() {
        let places = places(100, 100, 100);
        let of = |name: &str| Arc::new(places.take(address(1), Some(&agent(name))).unwrap());
        let [one, two] = [of("a"), of("a")];
        let first = one.stream().unwrap();
        let _second = two.stream().unwrap();
        let full = two.stream().err().unwrap();
        assert_eq!(full.limit, Limit::AgentStreams);
        let _others = of("b").stream().unwrap();
        assert_eq!(of("b").stream().err().unwrap().limit, Limit::Streams);
        drop(first);
        assert!(two.stream().is_ok());
    }

    #[test]
    fn only_some_of_a_crowd_are_told_why_they_are_turned_away() {
        let places = places(1, 1, 1);
        let mut told: Vec<_> = (0..MOST_TOLD).map(|_| places.telling()).collect();
        assert!(told.iter().all(Option::is_some));
        assert!(places.telling().is_none());
        told.pop();
        assert!(places.telling().is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let same = ["2001:db8::1", "2001:db8::ffff:0:1"].map(|a| network(a.parse().unwrap()));
        assert_eq!(same[0], same[1]);
        assert_ne!(network("2001:db8:0:1::1".parse().unwrap()), same[0]);
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address(1));
    }

    #[test]
    fn threads_that_come_together_have_no_more_places_than_there_are_and_leave_none() {
        let places = places(2, 1, 2);
        let held = AtomicUsize::new(0);
        let come = |name: &str| {
            for _ in 0..2 {
                let Ok(place) = places.take(address(1), None) else {
                    continue;
                };
                assert!(held.fetch_add(1, Ordering::SeqCst) < 2);
                let place = Arc::new(place);
                // Two requests on one connection, each of which names an agent.
                std::thread::scope(|scope| {
                    for name in [name, "other"] {
                        let place = &place;
                        scope.spawn(move || {
                            place.belongs_to(&agent(name)).ok();
                            drop(place.stream().ok());
                        });
                    }
                });
                held.fetch_sub(1, Ordering::SeqCst);
            }
        };
        std::thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                scope.spawn(move || come(name));
            }
        });
        let inner = &places.0;
        assert_eq!(inner.open.load(Ordering::Relaxed), 0);
        assert_eq!(inner.streaming.load(Ordering::Relaxed), 0);
        assert!(locked(&inner.agents).is_empty());
        assert!(locked(&inner.addresses).is_empty());
    }
}

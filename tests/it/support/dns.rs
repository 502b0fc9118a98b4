//! Owns a DNS server of a test's own: UDP and TCP on one port, and whatever answers the test wants.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Octets of an answer by UDP for one that says nothing of EDNS (RFC 1035, section 4.2.1).
const PLAIN_UDP: usize = 512;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Udp,
    Tcp,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Lower case, without the last dot.
    pub name: String,
    /// AAAA rather than A.
    pub v6: bool,
    pub by: By,
}

/// What is said to it.
#[derive(Clone, Debug)]
pub enum Says {
    /// These records, seconds to keep them, and a name each: the asked one for none.
    Records(Vec<(Option<&'static str>, Holds)>),
    /// A response code without records.
    Code(ResponseCode),
    /// Nothing.
    Nothing,
    /// Nothing but that it did not fit.
    Cut,
    /// Octets that are no DNS.
    Garbage,
    /// An answer to a question that was not asked: another number, then another name.
    Forged(IpAddr),
}

/// What a record holds.
#[derive(Clone, Copy, Debug)]
pub enum Holds {
    Ip(IpAddr),
    Alias(&'static str),
}

impl Says {
    /// These addresses, of which each question gets those of its family.
    pub fn ips(ips: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Records(ips.into_iter().map(|ip| (None, Holds::Ip(ip))).collect())
    }

    pub fn ip(ip: &str) -> Self {
        Self::ips([ip.parse().unwrap()])
    }
}

/// A running server; ends when dropped.
pub struct Dns {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    says: Box<dyn Fn(&Asked) -> Says + Send + Sync>,
}

impl Dns {
    pub async fn saying(says: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Self {
        let (udp, tcp) = sockets().await;
        let addr = udp.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let server = Arc::new(Server {
            asked: asked.clone(),
            says: Box::new(says),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(by_udp(udp, server.clone()));
        tasks.spawn(by_tcp(tcp, server));
        Self {
            addr,
            asked,
            _tasks: tasks,
        }
    }

    /// Every question so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Whether anybody asked for this name.
    pub fn was_asked(&self, name: &str) -> bool {
        self.asked().iter().any(|asked| asked.name == name)
    }
}

/// Both kinds of one port.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Another test may have the same port of the other kind.
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn by_udp(socket: UdpSocket, server: Arc<Server>) {
    let mut question = vec![0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut question).await {
        for answer in server.answers(&question[..length], By::Udp) {
            socket.send_to(&answer, peer).await.ok();
        }
    }
}

async fn by_tcp(listener: TcpListener, server: Arc<Server>) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let server = server.clone();
        open.spawn(async move { talk(stream, &server).await.ok() });
    }
}

/// Messages with their length before each (RFC 1035, section 4.2.2).
async fn talk(mut stream: TcpStream, server: &Server) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut question).await?;
        for answer in server.answers(&question, By::Tcp) {
            let length = u16::try_from(answer.len()).expect("it fits into 64 KiB");
            stream.write_all(&length.to_be_bytes()).await?;
            stream.write_all(&answer).await?;
        }
    }
}

impl Server {
    fn answers(&self, octets: &[u8], by: By) -> Vec<Vec<u8>> {
        let question = Message::from_vec(octets).expect("a question that is none");
        assert_eq!(question.metadata.message_type, MessageType::Query);
        assert_eq!(question.metadata.op_code, OpCode::Query);
        assert_eq!(question.queries.len(), 1, "{question:?}");
        let kind = question.queries[0].query_type();
        let asked = Asked {
            name: bare(question.queries[0].name()),
            v6: kind == RecordType::AAAA,
            by,
        };
        assert!(asked.v6 || kind == RecordType::A, "{question:?}");
        self.asked.lock().unwrap().push(asked.clone());
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.queries.clone_from(&question.queries);
        let own = question.queries[0].name().clone();
        match (self.says)(&asked) {
            Says::Nothing => return Vec::new(),
            Says::Garbage => return vec![b"\xff\xff\xff this is not DNS".to_vec()],
            Says::Code(code) => answer.metadata.response_code = code,
            Says::Cut => answer.metadata.truncation = true,
            Says::Records(records) => answer.answers = written(&own, &records, kind),
            // Only UDP can be answered by others than the one who was asked.
            Says::Forged(_) if by == By::Tcp => return Vec::new(),
            Says::Forged(ip) => {
                let records = [(None, Holds::Ip(ip))];
                let mut number = answer.clone();
                number.metadata.id = number.metadata.id.wrapping_add(1);
                number.answers = written(&own, &records, kind);
                let other = Name::from_ascii("somebody-else.example.com.").unwrap();
                answer.queries[0].name = other.clone();
                answer.answers = written(&other, &records, kind);
                return vec![number.to_vec().unwrap(), answer.to_vec().unwrap()];
            }
        }
        let most = match by {
            By::Tcp => usize::from(u16::MAX),
            By::Udp => usize::from(question.max_payload()).max(PLAIN_UDP),
        };
        let whole = answer.to_vec().unwrap();
        match whole.len() <= most {
            true => vec![whole],
            // A server says what fits and that it was not all (RFC 2181, section 9).
            false => {
                answer.answers.clear();
                answer.metadata.truncation = true;
                vec![answer.to_vec().unwrap()]
            }
        }
    }
}

fn bare(name: &Name) -> String {
    let text = name.to_ascii().to_lowercase();
    text.trim_end_matches('.').to_owned()
}

fn written(own: &Name, records: &[(Option<&'static str>, Holds)], kind: RecordType) -> Vec<Record> {
    let name = |text: &str| Name::from_ascii(format!("{text}.")).unwrap();
    let record = |(owner, holds): &(Option<&'static str>, Holds)| {
        let data = match *holds {
            Holds::Ip(IpAddr::V4(ip)) if kind == RecordType::A => RData::A(A(ip)),
            Holds::Ip(IpAddr::V6(ip)) if kind == RecordType::AAAA => RData::AAAA(AAAA(ip)),
            Holds::Ip(_) => return None,
            Holds::Alias(to) => RData::CNAME(CNAME(name(to))),
        };
        let owner = owner.map_or_else(|| own.clone(), name);
        // Nothing is kept: a test that answers anew wants to be asked anew.
        Some(Record::from_rdata(owner, 0, data))
    };
    records.iter().filter_map(record).collect()
}

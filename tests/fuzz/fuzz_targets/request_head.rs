//! CONNECT and request heads, bodies and what follows them: what the gate lets through, the HTTP library reads
//! the same way, each body with its end, and however the bytes are cut the gate says the same.
#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http::header::TRANSFER_ENCODING;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollgate::net::framing::Framing;

/// A request as the library reads it.
#[derive(Clone)]
struct Read {
    chunked: bool,
    /// The octets of its body, if it came to its end.
    body: Option<usize>,
}

/// What the library makes of a stream.
async fn library(stream: &[u8]) -> Vec<Read> {
    let (mut ours, theirs) = tokio::io::duplex(stream.len() + 1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = seen.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let seen = seeing.clone();
        async move {
            let chunked = request.headers().contains_key(TRANSFER_ENCODING);
            let at = {
                let mut seen = seen.lock().unwrap();
                seen.push(Read { chunked, body: None });
                seen.len() - 1
            };
            if let Ok(body) = request.into_body().collect().await {
                seen.lock().unwrap()[at].body = Some(body.to_bytes().len());
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let serving = http1::Builder::new()
        .max_buf_size(64 * 1024 + 8192)
        .serve_connection(TokioIo::new(theirs), service)
        .with_upgrades();
    let talking = async {
        ours.write_all(stream).await.ok();
        ours.shutdown().await.ok();
        let mut answers = Vec::new();
        ours.read_to_end(&mut answers).await.ok();
    };
    let (outcome, ()) = tokio::join!(serving, talking);
    drop(outcome);
    let seen = seen.lock().unwrap();
    seen.clone()
}

fn gate(pieces: &[&[u8]]) -> (Framing, bool) {
    let mut framing = Framing::default();
    let clean = pieces.iter().all(|piece| feed(&mut framing, piece));
    (framing, clean)
}

/// One request after the other.
fn feed(framing: &mut Framing, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match framing.feed(bytes) {
            Ok(read) => bytes = &bytes[read..],
            Err(_) => return false,
        }
    }
    true
}

/// The octets of each body as they stand in the stream, chunk sizes and trailers included.
fn bodies(stream: &[u8]) -> Vec<usize> {
    let mut framing = Framing::default();
    let mut bodies = Vec::new();
    for octet in stream.chunks(1) {
        let within = framing.within_body();
        if framing.feed(octet).is_err() {
            break;
        }
        bodies.resize(framing.heads(), 0);
        if within && let Some(last) = bodies.last_mut() {
            *last += 1;
        }
    }
    bodies
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let (whole, clean) = gate(&[stream]);
    let width = usize::from(cut % 7) + 1;
    let (split, split_clean) = gate(&stream.chunks(width).collect::<Vec<_>>());
    assert_eq!(clean, split_clean, "cut after {width}");
    assert_eq!(whole.sound(), split.sound(), "cut after {width}");
    assert_eq!(whole.heads(), split.heads());
    assert_eq!(whole.is_opaque(), split.is_opaque());
    assert_eq!(whole.within_body(), split.within_body());
    // Behind a granted CONNECT or upgrade it is not HTTP any more, which is for others to see to.
    if whole.is_opaque() {
        return;
    }
    // No more than this is handed over, whatever comes behind it.
    let stream = &stream[..usize::try_from(whole.sound()).unwrap()];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = runtime.block_on(library(stream));
    assert!(
        read.len() <= whole.heads(),
        "the library reads {} requests, the gate {}",
        read.len(),
        whole.heads()
    );
    // What it read to its end has the same end for the gate. (What the library refuses besides goes nowhere.)
    for (number, (read, gate)) in read.iter().zip(bodies(stream)).enumerate() {
        let Some(octets) = read.body else { continue };
        // The last chunk and the end of the trailers are five octets at least.
        let same = if read.chunked { gate >= octets + 5 } else { gate == octets };
        assert!(same, "body {number}: the library reads {octets} octets, the gate {gate}");
    }
    if clean && read.len() == whole.heads() && read.last().is_some_and(|read| read.body.is_some()) {
        assert!(!whole.within_body(), "the end of the last body");
    }
});

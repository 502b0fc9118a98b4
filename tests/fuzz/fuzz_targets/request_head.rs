//! CONNECT and request heads, bodies and what follows them: what the gate lets through, the HTTP library reads
//! the same way, and however the bytes are cut the gate says the same.
#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollgate::net::framing::Framing;

/// What the library makes of a stream: each request, and the octets of its body if it came to its end.
async fn library(stream: &[u8]) -> Vec<(Method, Option<usize>)> {
    let (mut ours, theirs) = tokio::io::duplex(stream.len() + 1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = seen.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let seen = seeing.clone();
        async move {
            let method = request.method().clone();
            let at = {
                let mut seen = seen.lock().unwrap();
                seen.push((method, None));
                seen.len() - 1
            };
            if let Ok(body) = request.into_body().collect().await {
                seen.lock().unwrap()[at].1 = Some(body.to_bytes().len());
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
    let clean = pieces.iter().all(|piece| framing.feed(piece).is_ok());
    (framing, clean)
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let (whole, clean) = gate(&[stream]);
    let width = usize::from(cut % 7) + 1;
    let (split, split_clean) = gate(&stream.chunks(width).collect::<Vec<_>>());
    assert_eq!(clean, split_clean, "cut after {width}");
    if !clean {
        return;
    }
    assert_eq!(whole.heads(), split.heads());
    assert_eq!(whole.is_opaque(), split.is_opaque());
    assert_eq!(whole.within_body(), split.within_body());
    // Behind a granted CONNECT or upgrade it is not HTTP any more, which is for others to see to.
    if whole.is_opaque() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = runtime.block_on(library(stream));
    assert!(
        read.len() <= whole.heads(),
        "the library reads {} requests, the gate {}",
        read.len(),
        whole.heads()
    );
    // Where it read all of them to their end, the last one has to have ended for the gate as well. (What the
    // library refuses besides goes nowhere.)
    if read.len() == whole.heads()
        && let Some((_, Some(_))) = read.last()
    {
        assert!(!whole.within_body(), "the end of the last body");
    }
});

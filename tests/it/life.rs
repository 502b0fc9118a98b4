//! From ready to gone: who may call, what an end of either side does to what is in flight.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::http::{Speaks, ask, send};
use super::support::agent::Agent;
use super::support::echo::{self, HOST, PLACEHOLDER, REAL_KEY};
use super::support::proxy::proxy;
use super::support::reply::{full, streamed};
use super::support::{tunnel, wire};

/// Lines of the access log that were lost.
const DROPPED: &str = "tollgate_telemetry_dropped_total{reason=\"queue_full\",sink=\"access_log\"}";

/// SIGTERM: nobody new, but a stream in flight goes on to its end.
#[tokio::test]
async fn a_stream_in_flight_outlives_sigterm() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let echo = echo::echo().await;
        let mut proxy = echo::in_front_of(&echo).start().await;
        let door = proxy.door().await;
        let answer = send(&door, speaks, ask(PLACEHOLDER, "GET", "/gated", full(""))).await;
        echo.release();
        let mut body = answer.into_body();
        body.frame().await.unwrap().unwrap();
        proxy.terminate().await;
        let gone = async {
            while tokio::net::TcpStream::connect(proxy.addr).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(10), gone).await;
        assert!(gone.is_ok(), "it still takes new connections");
        echo.release();
        echo.release();
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest, "event: tick\ndata: 2\n\nevent: tick\ndata: 3\n\n");
        proxy.ended().await;
    }
}

/// An agent that hangs up in the middle of an upload is gone from the origin too.
#[tokio::test]
async fn an_upload_that_is_cut_is_cut_at_the_origin() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let echo = echo::echo().await;
        let proxy = echo::in_front_of(&echo).start().await;
        let door = proxy.door().await;
        let first = stream::once(async { Frame::data(Bytes::from("only the beginning")) });
        let never = stream::pending::<Frame<Bytes>>();
        let body = streamed(stream::StreamExt::chain(first, never));
        let upload = tokio::spawn(async move {
            send(&door, speaks, ask(PLACEHOLDER, "POST", "/sink", body)).await;
        });
        let began = |r: &super::support::recorded::Recorded| r.body == b"only the beginning";
        echo.origin.wait_for("the beginning", began).await;
        upload.abort();
        assert!(upload.await.is_err());
        echo.origin.wait_for("the cut", |r| r.cut).await;
        assert!(!echo.origin.only("/sink").complete);
        // Nobody says that the origin failed.
        let record = proxy.access_log(1).await.remove(0);
        let told = (record["reason"].as_str(), record["end"].as_str());
        assert!(
            matches!(told, (Some("request_body"), _) | (None, Some(_))),
            "{speaks:?}: {record}"
        );
        let failures = proxy.admin("GET", "/metrics").await.text;
        assert!(
            !failures.contains("tollgate_upstream_failures_total{"),
            "{speaks:?}: {failures}"
        );
    }
}

/// Several agents: each names itself with a token; without one there is a 407, and nothing goes out.
#[tokio::test]
async fn an_agent_without_its_token_gets_407() {
    let curl = client!("curl");
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo)
        .env("SCAN_TOKEN", "token-of-scan-0001")
        .setting("identity: {agents: [{name: scan, token: {env: {name: SCAN_TOKEN}}}]}")
        .start()
        .await;
    let key = format!("authorization: Bearer {PLACEHOLDER}");
    let url = format!("https://{HOST}/who");
    let ask = async |user: &str| {
        let ca = proxy.ca_file().display().to_string();
        let door = format!("http://{user}{}", proxy.addr);
        let mut args = vec![
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_connect} %{http_code}",
        ];
        args.extend(["-x", &door, "--cacert", &ca, "-H", &key, &url]);
        Agent::alone().run(&curl, &args).await.stdout
    };
    assert_eq!(ask("").await, "407 000");
    assert_eq!(ask("scan:wrong@").await, "407 000");
    assert!(echo.origin.requests().is_empty());
    assert_eq!(ask("scan:token-of-scan-0001@").await, "200 200");
    let request = echo.origin.only("/who");
    assert_eq!(request.bearer(), Some(REAL_KEY));
    assert_eq!(request.header("proxy-authorization"), None);
}

/// Allowed by host alone: the agent sees the origin's own certificate, and no byte is changed.
#[tokio::test]
async fn a_tunnel_passes_the_origins_own_certificate() {
    let echo = echo::echo().await;
    let proxy = proxy()
        .origin(&echo.origin)
        .policy("- {hosts: [echo.example.com], tls: Passthrough}")
        .start()
        .await;
    let mut door = proxy.door().await;
    let dir = tempfile::tempdir().unwrap();
    door.ca_file = dir.path().join("origin.pem");
    std::fs::write(&door.ca_file, &echo.origin.ca_pem).unwrap();
    let request = ask(REAL_KEY, "GET", "/tunnelled", full(""));
    assert_eq!(send(&door, Speaks::Http2, request).await.status(), 200);
    assert_eq!(echo.origin.only("/tunnelled").bearer(), Some(REAL_KEY));
}

/// A tunnel to an allowed name must not carry a handshake for another one.
#[tokio::test]
async fn a_tunnel_for_another_server_name_is_closed() {
    let echo = echo::echo().await;
    let proxy = proxy()
        .origin(&echo.origin)
        .policy("- {hosts: [echo.example.com], tls: Passthrough}")
        .start()
        .await;
    let door = proxy.door().await;
    let (stream, status) = tunnel::connect(&door, "echo.example.com:443").await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    let fronted = tunnel::handshake(&door, "localhost", &[b"h2"], stream).await;
    let error = fronted.expect_err("the handshake must not come through");
    assert!(
        !error.to_string().contains("invalid peer certificate"),
        "no certificate may arrive at all: {error}"
    );
    assert!(echo.origin.requests().is_empty());
}

/// What is no TLS at all does not pass a tunnel on port 443.
#[tokio::test]
async fn plain_bytes_do_not_pass_a_tunnel() {
    let echo = echo::echo().await;
    let proxy = proxy()
        .origin(&echo.origin)
        .policy("- {hosts: [echo.example.com], tls: Passthrough}")
        .start()
        .await;
    let door = proxy.door().await;
    let (mut stream, status) = tunnel::connect(&door, "echo.example.com:443").await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    let request = b"GET / HTTP/1.1\r\nhost: echo.example.com\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request)
        .await
        .unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest));
    read.await.expect("the tunnel is closed").ok();
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
}

/// A core file would hold every secret of the process.
#[tokio::test]
async fn a_crash_leaves_no_core_file() {
    let echo = echo::echo().await;
    let mut proxy = echo::in_front_of(&echo).start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let cores = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = cores.unwrap().split_whitespace().collect();
    assert_eq!(&words[4..6], ["0", "0"], "{cores:?}");
    assert!(proxy.output().contains("dumps=off"), "{}", proxy.output());
    proxy.signal("-ABRT").await;
    proxy.gone().await;
    let left = std::fs::read_dir(proxy.config.parent().unwrap()).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !names.iter().any(|n| n.to_string_lossy().contains("core")),
        "{names:?}"
    );
}

/// A pipe that is not there any more when the proxy's files are searched: that would wait for a writer.
struct Gone(std::path::PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// A reader that stopped must not keep the process from its end: it would be killed, and its books with it.
#[tokio::test]
async fn an_access_log_on_a_pipe_that_nobody_reads_keeps_it_from_no_end() {
    let described = proxy();
    let pipe = described.file("access.log");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    // Whoever opens it for both waits for nobody, and lets the proxy open it.
    let reader = std::fs::File::options().read(true).write(true).open(&pipe);
    let reader = reader.unwrap();
    let mut proxy = described.start().await;
    let _pipe = Gone(pipe);
    let mut stream = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
    let request = b"GET http://a.example.com/ HTTP/1.1\r\nhost: a.example.com\r\n\r\n";
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    // It writes no more, and its queue is full.
    while proxy.metric(DROPPED).await.unwrap_or(0.0) == 0.0 {
        assert!(std::time::Instant::now() < deadline, "nothing was dropped");
        for _ in 0..100 {
            stream.write_all(&request.repeat(8)).await.unwrap();
            for _ in 0..8 {
                assert_eq!(wire::hear(&mut stream).await.status, 403);
            }
        }
    }
    drop(stream);
    proxy.terminate().await;
    proxy.ended().await;
    drop(reader);
}

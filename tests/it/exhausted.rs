//! A process that may open no more files: it waits for others to end, says so once, and goes on by itself.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::support::echo::{self, PLACEHOLDER};
use super::support::operator::{PATIENCE, until};
use super::support::proxy::Proxy;
use super::support::visitor::{Visitor, get};

const TOLD: &str = "no connection can be accepted";

/// Seconds of processor time that it used so far (proc(5), fields 14 and 15, in ticks of 10 ms).
fn worked(proxy: &Proxy) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    let after = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<&str> = after.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn open_files(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .unwrap()
        .count()
}

#[tokio::test]
async fn without_descriptors_it_waits_and_goes_on_by_itself() {
    let echo = echo::echo().await;
    let mut proxy = echo::in_front_of(&echo).start().await;
    proxy.kill().await;
    proxy.respawn_below("prlimit", &["--nofile=80:80".to_owned(), "--".to_owned()]);
    proxy.ready().await;
    let door = proxy.bare_door();
    let mut kept = Visitor::http1(&door, PLACEHOLDER).await;
    assert_eq!(kept.get("/before").await.unwrap().0, 200);

    let mut crowd = Vec::new();
    until("all descriptors are taken", PATIENCE, async || {
        crowd.push(TcpStream::connect(proxy.addr).await.unwrap());
        proxy.output().contains(TOLD)
    })
    .await;
    let (began, before) = (Instant::now(), worked(&proxy));
    // Whoever is served already still is: its connections are there.
    for _ in 0..20 {
        assert_eq!(kept.get("/meanwhile").await.unwrap().0, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let share = (worked(&proxy) - before) / began.elapsed().as_secs_f64();
    assert!(
        share < 0.5,
        "it used {share} of a processor while it waited"
    );
    let lines = proxy.output().matches(TOLD).count();
    assert_eq!(lines, 1, "{}", proxy.output());
    // One that came meanwhile is not refused; it has its turn.
    let late = {
        let door = door.clone();
        tokio::spawn(async move { get(&door, PLACEHOLDER, "/late").await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!late.is_finished(), "there was room after all");
    drop(crowd);
    let late = tokio::time::timeout(PATIENCE, late).await.unwrap().unwrap();
    assert_eq!(late.0, 200, "{}", late.1);
    for number in 0..10 {
        assert_eq!(
            get(&door, PLACEHOLDER, &format!("/after/{number}")).await.0,
            200
        );
    }
    until("the descriptors come back", PATIENCE, async || {
        open_files(&proxy) < 60
    })
    .await;
    for request in echo.origin.requests() {
        assert_eq!(request.bearer(), Some(echo::REAL_KEY));
    }
}

/// Where the agent's side has a descriptor and the origin's would need one more.
#[tokio::test]
async fn an_origin_that_cannot_be_dialled_for_want_of_descriptors_is_a_503() {
    let echo = echo::echo().await;
    let mut proxy = echo::in_front_of(&echo).start().await;
    proxy.kill().await;
    proxy.respawn_below("prlimit", &["--nofile=80:80".to_owned(), "--".to_owned()]);
    proxy.ready().await;
    let door = proxy.bare_door();
    // Its session with the proxy stands before the crowd comes; the one with the origin does not.
    let mut early = Visitor::http1(&door, PLACEHOLDER).await;
    let mut crowd = Vec::new();
    until("all descriptors are taken", PATIENCE, async || {
        crowd.push(TcpStream::connect(proxy.addr).await.unwrap());
        proxy.output().contains(TOLD)
    })
    .await;
    let (status, text) = early.get("/none").await.unwrap();
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("too many open files"), "{text}");
    drop(crowd);
    until("it is dialled again", PATIENCE, async || {
        early.get("/again").await.unwrap().0 == 200
    })
    .await;
}

#[tokio::test]
async fn the_usual_limit_of_descriptors_is_raised_to_what_may_be_had() {
    let echo = echo::echo().await;
    let mut proxy = echo::in_front_of(&echo).start().await;
    proxy.kill().await;
    proxy.respawn_below(
        "prlimit",
        &["--nofile=256:2048".to_owned(), "--".to_owned()],
    );
    proxy.ready().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let words: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(&words[3..5], ["2048", "2048"], "{files}");
}

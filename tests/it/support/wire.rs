//! Owns conversations byte by byte: what an attacker writes, and how the answer is read.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// One response as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub phrase: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub async fn of(response: http::Response<hyper::body::Incoming>) -> Self {
        use http_body_util::BodyExt as _;
        let (head, body) = response.into_parts();
        Self {
            status: head.status.as_u16(),
            phrase: String::new(),
            headers: super::recorded::fields(&head.headers),
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }
}

/// Writes, then reads one answer.
pub async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Answer {
    // The other side may have heard enough before all of it is written.
    stream.write_all(bytes).await.ok();
    stream.flush().await.ok();
    hear(stream).await
}

/// Reads one answer; panics if none comes.
pub async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Answer {
    let heard = tokio::time::timeout(Duration::from_secs(20), read(stream)).await;
    heard.unwrap_or_else(|_| panic!("no answer"))
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut status = lines.next().unwrap().splitn(3, ' ').skip(1);
    let code = status.next().unwrap().parse().unwrap();
    let phrase = status.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
    let mut answer = Answer {
        status: code,
        phrase,
        headers,
        body: Vec::new(),
    };
    if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut answer.body).await.unwrap();
    }
    answer
}

/// Everything until the other side closes.
pub async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    // A reset or a TLS stream without its closing is an end as well.
    assert!(read.is_ok(), "the connection stays open: {all:?}");
    all
}

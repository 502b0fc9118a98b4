//! Owns the end of a connection that gets a last word.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long the one who is told goodbye has for reading it.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);
/// How much is read away meanwhile: who sends more does not listen.
const MOST_UNREAD: usize = 1 << 20;

/// A connection that ends with a last word. What still comes is read away for a moment: a socket
/// closed over unread bytes is reset, and the word may be lost with it.
pub struct Closing {
    word: Bytes,
    shut: bool,
    patience: Pin<Box<Sleep>>,
    /// Bytes that are read away yet.
    room: usize,
}

impl Closing {
    /// One that ends with `word`, which may be empty.
    pub fn new(word: Bytes) -> Self {
        Self {
            word,
            shut: false,
            patience: Box::pin(tokio::time::sleep(GOODBYE)),
            room: MOST_UNREAD,
        }
    }

    /// An error in the end, always: nothing follows.
    pub fn poll<S>(&mut self, inner: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ended = || Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData)));
        if self.patience.as_mut().poll(cx).is_ready() {
            return ended();
        }
        while !self.word.is_empty() {
            match ready!(Pin::new(&mut *inner).poll_write(cx, &self.word)) {
                Ok(written @ 1..) => self.word.advance(written),
                _ => return ended(),
            }
        }
        if !self.shut {
            ready!(Pin::new(&mut *inner).poll_shutdown(cx))?;
            self.shut = true;
        }
        let mut sink = [0; 4096];
        loop {
            let mut unread = ReadBuf::new(&mut sink);
            match ready!(Pin::new(&mut *inner).poll_read(cx, &mut unread)) {
                Ok(()) if (1..self.room).contains(&unread.filled().len()) => {
                    self.room -= unread.filled().len();
                }
                _ => return ended(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// The end of what was said is heard at once: whoever reads to it does not wait for the patience to end.
    #[tokio::test(start_paused = true)]
    async fn a_last_word_has_an_end() {
        let (mut agent, mut proxy) = tokio::io::duplex(1024);
        let closing = tokio::spawn(async move {
            let mut closing = Closing::new(Bytes::from_static(b"goodbye"));
            std::future::poll_fn(|cx| closing.poll(&mut proxy, cx)).await
        });
        let began = Instant::now();
        let mut heard = Vec::new();
        agent.read_to_end(&mut heard).await.unwrap();
        assert_eq!(
            (heard.as_slice(), began.elapsed()),
            (&b"goodbye"[..], Duration::ZERO)
        );
        drop(agent);
        assert!(closing.await.unwrap().is_err(), "nothing follows");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_on_sending_after_the_last_word_is_not_read_without_end() {
        let (mut agent, mut proxy) = tokio::io::duplex(64 << 10);
        let sending = tokio::spawn(async move {
            let piece = [b'x'; 16 << 10];
            let mut sent = 0;
            while sent < 16 * MOST_UNREAD && agent.write_all(&piece).await.is_ok() {
                sent += piece.len();
            }
            sent
        });
        let mut closing = Closing::new(Bytes::from_static(b"goodbye"));
        let ended = std::future::poll_fn(|cx| closing.poll(&mut proxy, cx)).await;
        assert!(ended.is_err());
        drop(proxy);
        let sent = sending.await.unwrap();
        assert!((MOST_UNREAD / 2..2 * MOST_UNREAD).contains(&sent), "{sent}");
    }
}

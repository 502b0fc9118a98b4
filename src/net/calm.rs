//! Owns the IO under an HTTP/2 connection: it ends one whose other side floods it, or takes nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::closing::Closing;
use super::frames::{Frames, Opener};
use super::greeting::Greeting;
use super::silence::Silence;
use super::stall::Stall;

/// How long the other side may take nothing that is there for it. Windows are the streams' own matter; this is
/// the socket, which not even the answer to a PING leaves any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who wants to know that a connection was ended.
pub type OnEnd = Box<dyn FnOnce() + Send>;

/// An HTTP/2 connection, watched.
pub struct Calm<S> {
    inner: S,
    frames: Frames,
    stall: Stall,
    closing: Option<Closing>,
    on_flood: Option<OnEnd>,
    greeting: Option<Greeting>,
    silence: Option<Silence>,
    on_silence: Option<OnEnd>,
}

impl<S> Calm<S> {
    /// Watches `inner`, whose streams `opener` opens; `on_flood` is called if that ends it.
    pub fn new(inner: S, opener: Opener, on_flood: OnEnd) -> Self {
        Self {
            inner,
            frames: Frames::new(opener),
            stall: Stall::default(),
            closing: None,
            on_flood: Some(on_flood),
            greeting: None,
            silence: None,
            on_silence: None,
        }
    }

    /// The same, and one who says nothing is left. The library asks it with a PING after so long a silence; its own
    /// clock for the answer would leave those who take what is on its way before that, and slowly. `on_silence` is
    /// called if one is left that owes an answer, or does not take what is written.
    pub fn asked_after(mut self, ping: Duration, on_silence: OnEnd) -> Self {
        self.on_silence = Some(on_silence);
        self.silence = Some(Silence::new(ping));
        self
    }

    /// The same, and `greeting` hears what the other side says first.
    pub fn with_greeting(mut self, greeting: Greeting) -> Self {
        self.greeting = Some(greeting);
        self
    }

    /// These pieces were taken, as far as `count` octets go.
    fn taken<'b>(&mut self, pieces: impl Iterator<Item = &'b [u8]>, mut count: usize) {
        let mut asks = false;
        for piece in pieces {
            let part = count.min(piece.len());
            asks |= self.frames.went(&piece[..part]);
            count -= part;
        }
        if let Some(silence) = &mut self.silence {
            silence.taken();
            if asks {
                silence.waits();
            }
        }
    }

    fn written<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall.moved();
            return polled;
        }
        if let Some(silence) = &mut self.silence {
            silence.waits();
        }
        ready!(self.stall.poll(PATIENCE, cx));
        let what = "the other side took nothing";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Calm<S> {
    fn close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(on_flood) = self.on_flood.take() {
            on_flood();
        }
        let word = self.frames.goodbye();
        let word = word.map_or_else(Bytes::new, |word| Bytes::copy_from_slice(&word));
        self.closing
            .insert(Closing::new(word))
            .poll(&mut self.inner, cx)
    }

    /// Always an error in the end: whoever waits to write learns that the connection is over.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Error>> {
        let polled = self.closing.as_mut()?.poll(&mut self.inner, cx);
        Some(polled.map(|ended| {
            ended
                .err()
                .unwrap_or(io::ErrorKind::ConnectionAborted.into())
        }))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(closing) = this.poll_closing(cx) {
            return closing.map(Err);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Some(silence) = &mut this.silence {
            match read {
                Poll::Ready(_) => silence.heard(),
                Poll::Pending => {
                    ready!(silence.poll(cx));
                    if let Some(on_silence) = this.on_silence.take()
                        && silence.owes()
                    {
                        on_silence();
                    }
                    let what = "the other side said nothing, not even in answer to a PING";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
                }
            }
        }
        ready!(read)?;
        let came = &buf.filled()[before..];
        if this.greeting.as_mut().is_some_and(|g| g.came(came)) {
            this.greeting = None;
        }
        if this.frames.came(came) {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(before);
        this.close(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(closing) = self.poll_closing(cx) {
            return closing.map(Err);
        }
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = polled {
            self.taken([buf].into_iter(), count);
        }
        self.written(polled, cx)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(closing) = self.poll_closing(cx) {
            return closing.map(Err);
        }
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(polled, cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(closing) = self.poll_closing(cx) {
            return closing.map(Err);
        }
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.written(polled, cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(closing) = self.poll_closing(cx) {
            return closing.map(Err);
        }
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(count)) = polled {
            self.taken(bufs.iter().map(|buf| &**buf), count);
        }
        self.written(polled, cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_to_calm_down_and_ends() {
        let (mut agent, proxy) = tokio::io::duplex(1 << 20);
        let noticed = Arc::new(AtomicBool::new(false));
        let notice = noticed.clone();
        let on_flood = Box::new(move || notice.store(true, Ordering::Relaxed));
        let mut calm = Calm::new(proxy, Opener::Other, on_flood);
        let flood = [PREFACE, &PING.repeat(2001)].concat();
        agent.write_all(&flood).await.unwrap();
        let mut sink = Vec::new();
        assert!(calm.read_to_end(&mut sink).await.is_err());
        assert!(noticed.load(Ordering::Relaxed));
        assert!(calm.write_all(b"more").await.is_err());
        drop(calm);
        let mut told = Vec::new();
        agent.read_to_end(&mut told).await.unwrap();
        assert_eq!(told[..9], [0, 0, 8, 7, 0, 0, 0, 0, 0]);
        assert_eq!(told.last(), Some(&11));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_nothing_is_left() {
        let (_agent, proxy) = tokio::io::duplex(64);
        let mut calm = Calm::new(proxy, Opener::Other, Box::new(|| {}));
        let started = Instant::now();
        let writing = async { calm.write_all(&[0; 1024]).await };
        let writing = tokio::time::timeout(PATIENCE * 3, writing).await;
        let error = writing.expect("it is kept").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((PATIENCE..PATIENCE * 2).contains(&started.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_owes_no_answer_is_left_without_a_word_about_it() {
        let ping = Duration::from_secs(10);
        let ack = [&PING[..4], &[1], &PING[5..]].concat();
        let more_than_it_takes = [&[0, 0, 100, 0, 0, 0, 0, 0, 1][..], &[0; 100]].concat();
        for (says, is_asked) in [
            (&b""[..], false),
            (&ack, false),
            (&PING, true),
            (&more_than_it_takes, true),
        ] {
            let (_agent, proxy) = tokio::io::duplex(64);
            let noticed = Arc::new(AtomicBool::new(false));
            let notice = noticed.clone();
            let on_silence = Box::new(move || notice.store(true, Ordering::Relaxed));
            let calm = Calm::new(proxy, Opener::Own, Box::new(|| {}));
            let mut calm = calm.asked_after(ping, on_silence);
            let said = [PREFACE, says].concat();
            let writing = tokio::time::timeout(ping / 10, calm.write_all(&said));
            writing.await.ok();
            let error = calm.read(&mut [0; 64]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(noticed.load(Ordering::Relaxed), is_asked, "{says:?}");
        }
    }
}

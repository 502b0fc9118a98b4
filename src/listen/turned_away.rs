//! Owns connections that no place is left for: told why, in HTTP, before they have asked anything.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::doors::Doors;
use crate::proxy::error::ProxyError;
use crate::proxy::last_word::Caller;
use crate::types::reached::Reached;

/// How long one who is turned away has for reading it.
const GOODBYE: Duration = Duration::from_secs(1);

/// Answers what the connection would ask first, whatever it is: 429 or 503 and the limit. Of many at once
/// only some are told and on record; all are counted.
pub async fn tell(doors: &Doors, mut stream: TcpStream, caller: &Caller, reached: Reached) {
    let ledgers = &doors.exchange.ledgers;
    let Some(_telling) = doors.places.telling() else {
        return ledgers.metrics().limit_reached(reached.limit);
    };
    let word = caller.told(ledgers, &ProxyError::Limit(reached));
    let limit = reached.limit.setting();
    tracing::warn!(peer = %caller.peer, limit, %reached, "a connection was turned away");
    // Whether it was read or not makes no difference: it is over.
    timeout(GOODBYE, goodbye(&mut stream, &word)).await.ok();
}

async fn goodbye<S>(stream: &mut S, word: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(word).await?;
    stream.shutdown().await?;
    // A socket that is closed over unread bytes is reset, and the word may be lost with it.
    let mut sink = [0; 4096];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_who_is_turned_away_still_says_is_read_before_the_socket_is_closed() {
        let (mut agent, mut proxy) = tokio::io::duplex(16);
        let goodbye = tokio::spawn(async move { goodbye(&mut proxy, b"no").await });
        let mut heard = Vec::new();
        agent.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"no");
        // A side that is gone takes none of it.
        agent.write_all(&[0; 1024]).await.unwrap();
        drop(agent);
        goodbye.await.unwrap().unwrap();
    }
}

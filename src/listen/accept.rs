//! Owns accepting: connections are taken, given to a door, and drained at the end.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::net::socket;
use crate::rt::drain::Drain;

/// Accepts until the process drains; `serve` has one connection each.
pub async fn run<F, Fut>(listener: TcpListener, drain: Drain, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = drain.asked() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                socket::tune(&stream);
                drain.spawn(serve(stream, peer));
            }
            Err(error) => {
                // Out of descriptors: the cause stays until connections end, so a tight loop would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

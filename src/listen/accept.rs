//! Owns accepting: connections are taken, given to a door, and drained at the end.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::strain::Strain;
use crate::net::socket;
use crate::rt::drain::Drain;

/// Accepts until the process drains; `serve` has one connection each.
pub async fn run<F, Fut>(listener: TcpListener, drain: Drain, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut strain = Strain::default();
    loop {
        let accepted = tokio::select! {
            () = drain.asked() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                strain.over();
                socket::tune(&stream);
                drain.spawn(serve(stream, peer));
            }
            Err(error) => strain.failed(&error).await,
        }
    }
}

//! Owns accepting: connections are taken up to a limit, given to a door, and drained at the end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::strain::Strain;
use crate::net::socket;
use crate::rt::drain::Drain;

/// Connections open at once; further ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 16 * 1024;

/// Accepts until the process drains; `serve` has one connection each.
pub async fn run<F, Fut>(listener: TcpListener, drain: Drain, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut strain = Strain::default();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = drain.asked() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                strain.over();
                socket::tune(&stream);
                let connection = serve(stream, peer);
                drain.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => strain.failed(&error).await,
        }
    }
}

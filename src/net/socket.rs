//! Owns how sockets are opened: listening, dialling, and the options every connection gets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

/// Binds a listening socket. The error names the address and what usually is wrong.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "the port is in use; stop the other process or choose another port"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges; choose a higher port"
            }
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
            _ => {
                return io::Error::new(
                    error.kind(),
                    format!("cannot listen on {address}: {error}"),
                );
            }
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {why}"))
    })
}

/// Dials one address.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream);
    Ok(stream)
}

/// Small writes leave at once, and a dead peer is noticed within minutes.
pub fn tune(stream: &TcpStream) {
    // Both are improvements, not conditions: a socket that refuses them still works.
    stream.set_nodelay(true).ok();
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    SockRef::from(stream).set_tcp_keepalive(&keepalive).ok();
}

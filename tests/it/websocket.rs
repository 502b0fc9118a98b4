//! WebSocket by HTTP/1.1 upgrade, through the forward door and the base-URL door.

use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::support::door::Door;
use super::support::{echo, tunnel};

/// Text, binary and a large message there and back, then a proper close.
pub async fn converse<S>(stream: S, url: &str, key: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request: Request<()> = url.into_client_request().unwrap();
    let key = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", key);
    let (mut socket, answer) = client_async(request, stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    let messages = [
        Message::text("hello"),
        Message::binary(echo::pattern(70_000)),
        Message::text("ä".repeat(100_000)),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    let last = socket.next().await;
    assert!(matches!(last, Some(Ok(Message::Close(_)))), "{last:?}");
}

pub async fn by_forward_door(door: &Door, key: &str) {
    let stream = tunnel::tls(door, echo::HOST, &[b"http/1.1"]).await;
    converse(stream, &format!("wss://{}/ws?room=a%2Fb", echo::HOST), key).await;
}

pub fn assert_conversed(echo: &echo::Echo) {
    let request = echo.origin.only("/ws");
    assert_eq!(request.target, "/ws?room=a%2Fb");
    assert_eq!(request.bearer(), Some(echo::REAL_KEY));
    assert_eq!(request.header("sec-websocket-version"), Some("13"));
}

#[tokio::test]
async fn a_websocket_passes_by_the_forward_door() {
    for echo in [echo::echo().await, echo::echo_http1().await] {
        let proxy = echo::in_front_of(&echo).start().await;
        by_forward_door(&proxy.door().await, echo::PLACEHOLDER).await;
        assert_conversed(&echo);
        echo.origin.assert_no_head_mentions(echo::PLACEHOLDER);
        proxy.access_log(1).await;
    }
}

#[tokio::test]
async fn a_websocket_passes_by_the_base_url_door() {
    let echo = echo::echo_http1().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let stream = TcpStream::connect(proxy.addr).await.unwrap();
    let url = format!("ws://{}/echo/ws?room=a%2Fb", proxy.addr);
    converse(stream, &url, echo::PLACEHOLDER).await;
    assert_conversed(&echo);
    echo.origin.assert_no_head_mentions(echo::PLACEHOLDER);
}

/// A refusal of the handshake is the origin's to give, and must arrive as it is.
#[tokio::test]
async fn a_declined_upgrade_arrives_as_the_origin_gave_it() {
    let echo = echo::echo_http1().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let door = proxy.door().await;
    let stream = tunnel::tls(&door, echo::HOST, &[b"http/1.1"]).await;
    let request = format!("wss://{}/open/nothing", echo::HOST);
    let error = client_async(request, stream).await.unwrap_err();
    assert!(error.to_string().contains("200"), "{error}");
}

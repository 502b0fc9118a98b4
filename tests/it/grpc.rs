//! gRPC with a real client: trailers arrive, and no message waits for the next.

use super::sdks::talk;
use super::support::agent::Agent;
use super::support::echo;

pub fn assert_called(echo: &echo::Echo, said: &serde_json::Value) {
    assert_eq!(said["unary"], "hello");
    assert_eq!(said["status"], "OK");
    assert_eq!(said["trailers"]["x-verdict"], "fine");
    assert_eq!(
        said["bidi"],
        serde_json::json!(["message 0", "message 1", "message 2"])
    );
    assert_eq!(said["rest"], 0);
    for method in ["/echo.Echo/Unary", "/echo.Echo/Bidi"] {
        let request = echo.origin.only(method);
        assert_eq!(request.version, http::Version::HTTP_2);
        assert_eq!(request.bearer(), Some(echo::REAL_KEY));
        assert_eq!(request.header("te"), Some("trailers"));
        assert_eq!(request.header("content-type"), Some("application/grpc"));
    }
    // A length-prefixed message: flag, length, bytes.
    assert_eq!(
        echo.origin.only("/echo.Echo/Unary").body,
        b"\0\0\0\0\x05hello"
    );
}

#[tokio::test]
async fn grpc_unary_and_bidirectional_calls_pass() {
    let python = client!("python-grpcio");
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let said = talk(&python, Agent::at(&proxy.door().await), "grpc_echo.py").await;
    assert_called(&echo, &said);
    echo.origin.assert_no_head_mentions(echo::PLACEHOLDER);
}

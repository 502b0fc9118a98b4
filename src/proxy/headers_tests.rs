//! Heads of requests and answers: what is refused, what ends with a hop, what must agree.

use super::*;

fn head(request: http::request::Builder) -> Parts {
    request.body(()).unwrap().into_parts().0
}

fn target() -> Authority {
    Authority::parse("api.example.com", Some(443)).unwrap()
}

#[test]
fn every_place_that_names_a_host_must_name_the_target() {
    let build = || http::Request::builder();
    for good in [
        build().uri("/x").header("host", "api.example.com"),
        build().uri("/x").header("host", "API.example.com:443"),
        build().uri("https://api.example.com/x"),
        build()
            .uri("https://api.example.com/x")
            .header("host", "api.example.com."),
    ] {
        assert!(agree(&head(good), Scheme::Https, &target()).is_ok());
    }
    for bad in [
        build().uri("/x").header("host", "evil.example.com"),
        build().uri("/x").header("host", "api.example.com:444"),
        build()
            .uri("/x")
            .header("host", "api.example.com")
            .header("host", "api.example.com"),
        build()
            .uri("https://evil.example.com/x")
            .header("host", "api.example.com"),
        build()
            .uri("https://api.example.com/x")
            .header("host", "evil.example.com"),
        build().uri("/x"),
        build()
            .uri("http://api.example.com:443/x")
            .header("host", "api.example.com"),
        build()
            .uri("ftp://api.example.com:443/x")
            .header("host", "api.example.com"),
        build()
            .version(Version::HTTP_2)
            .uri("http://api.example.com:443/x"),
    ] {
        assert!(agree(&head(bad), Scheme::Https, &target()).is_err());
    }
}

#[test]
fn hop_by_hop_fields_end_here_and_trailers_go_on() {
    let mut head = head(
        http::Request::builder()
            .header(
                "connection",
                "close, x-foo-hop".replace("x-foo-hop", "foo-hop"),
            )
            .header("foo-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authorization", "Basic eDp5")
            .header("proxy-connection", "keep-alive")
            .header("x-tollgate-decision", "allow")
            .header("te", "gzip, trailers")
            .header("accept", "*/*"),
    );
    assert_eq!(end_hop(&mut head).unwrap(), UpgradeWish::None);
    let left: Vec<_> = head
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    assert_eq!(left, [("accept", "*/*"), ("te", "trailers")]);
}

#[test]
fn a_connection_field_cannot_remove_a_credential() {
    for name in ["authorization", "x-api-key", "cookie", "host"] {
        let mut head = head(http::Request::builder().header("connection", name));
        assert!(end_hop(&mut head).is_err(), "{name}");
    }
}

#[test]
fn trailers_hold_no_credential_and_nothing_that_belongs_in_a_head() {
    let mut trailers = HeaderMap::new();
    for (name, stays) in [
        ("authorization", false),
        ("x-api-key", false),
        ("cookie", false),
        ("x-auth-token", false),
        ("content-length", false),
        ("transfer-encoding", false),
        ("host", false),
        ("if-match", false),
        ("x-original-url", false),
        ("content_length", false),
        ("transfer_encoding", false),
        ("x_original_url", false),
        ("grpc-status", true),
        ("x-checksum", true),
        ("x-amz-checksum-crc32", true),
        ("x-amz-trailer-signature", true),
    ] {
        trailers.clear();
        trailers.insert(name, HeaderValue::from_static("x"));
        clean_trailers(&mut trailers);
        assert_eq!(trailers.contains_key(name), stays, "{name}");
    }
}

#[test]
fn headers_that_name_another_method_or_path_are_seen() {
    let named = |name: &str, value: &str| {
        let head = head(http::Request::post("/x").header(name, value));
        overriding_method(&head)
    };
    let delete = named("x-http-method-override", "delete").unwrap();
    assert_eq!(delete, Some(Method::DELETE));
    assert_eq!(named("X-HTTP-Method", "POST").unwrap(), None);
    for (name, value) in [
        ("x-http-method-override", "trace"),
        ("x-http-method-override", "a b"),
        ("x-http-method-override", ""),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
    ] {
        assert!(named(name, value).is_err(), "{name}: {value}");
    }
}

#[test]
fn methods_that_reflect_are_refused_however_they_are_written() {
    for word in ["TRACE", "trace", "Track", "CONNECT", "connect"] {
        assert!(method(&Method::from_bytes(word.as_bytes()).unwrap()).is_err());
    }
    assert!(method(&Method::from_bytes(b"PROPFIND").unwrap()).is_ok());
}

#[test]
fn a_known_method_in_other_letters_is_none() {
    let of = |word: &str| method(&Method::from_bytes(word.as_bytes()).unwrap());
    for word in METHODS {
        assert!(of(word).is_ok(), "{word}");
        for other in [
            word.to_lowercase(),
            word[..1].to_owned() + &word[1..].to_lowercase(),
        ] {
            assert!(
                matches!(of(&other), Err(ProxyError::Malformed(_))),
                "{other}"
            );
        }
    }
    assert!(of("frobnicate").is_ok(), "nobody else knows it either");
}

#[test]
fn only_websocket_upgrades_are_carried() {
    let wish = |upgrade: &str| {
        let mut head = head(
            http::Request::builder()
                .header("connection", "keep-alive, Upgrade")
                .header("upgrade", upgrade),
        );
        (
            end_hop(&mut head).unwrap(),
            head.headers.contains_key("upgrade"),
        )
    };
    assert_eq!(wish("websocket"), (UpgradeWish::WebSocket, true));
    assert_eq!(wish("h2c"), (UpgradeWish::None, false));
}

#[test]
fn overrides_are_seen_through_underscores() {
    let of = |name: &str| overriding_method(&head(http::Request::builder().header(name, "DELETE")));
    for name in [
        "X-HTTP-Method-Override",
        "X_HTTP_Method_Override",
        "x_http-method",
    ] {
        assert_eq!(of(name).unwrap(), Some(Method::DELETE), "{name}");
    }
    for name in ["X-Original-URL", "X_Original_URL", "X-Forwarded-Uri"] {
        assert!(of(name).is_err(), "{name}");
    }
    assert_eq!(of("x-request-id").unwrap(), None);
}

#[test]
fn http2_heads_have_the_bounds_of_http1() {
    let build = || http::Request::builder().version(Version::HTTP_2);
    let crowded = (0..101).fold(build().uri("https://a.com/"), |b, n| {
        b.header(format!("x-{n}"), "1")
    });
    let bounds = |head: &Parts| bounds(head, &RequestLimits::default());
    assert!(bounds(&head(crowded)).is_err());
    let lengths = build().uri("https://a.com/").header("content-length", "0");
    assert!(bounds(&head(lengths.header("content-length", "0"))).is_err());
    for (name, value) in [("content_length", "5"), ("transfer_encoding", "chunked")] {
        let misspelt = build().uri("https://a.com/").header(name, value);
        let refused = bounds(&head(misspelt)).unwrap_err();
        assert_eq!(refused.reason(), "ambiguous_request", "{name}");
    }
    assert!(bounds(&head(build().uri("https://a.com/"))).is_ok());
}

#[test]
fn an_answer_has_one_length_or_chunks() {
    let of = |fields: &[(&'static str, &'static str)]| {
        let fields = fields.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut headers = HeaderMap::new();
        fields.for_each(|(name, value)| _ = headers.append(name, value));
        has_two_readings(&headers)
    };
    for good in [
        &[][..],
        &[("content-length", "5")],
        &[("transfer-encoding", "Chunked")],
    ] {
        assert!(!of(good), "{good:?}");
    }
    for bad in [
        &[("content-length", "5"), ("content-length", "5")][..],
        &[("content-length", "5, 5")],
        &[("content-length", "+5")],
        &[("content-length", "5"), ("transfer-encoding", "chunked")],
        &[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked"),
        ],
        &[("transfer-encoding", "gzip, chunked")],
        &[("transfer-encoding", "identity")],
    ] {
        assert!(of(bad), "{bad:?}");
    }
}

#[test]
fn nobody_else_speaks_in_the_proxys_name() {
    let ends: [fn(&mut HeaderMap); 3] = [end_response_hop, end_upgrade_hop, end_trailers_hop];
    for end in ends {
        let mut headers = HeaderMap::new();
        for name in ["decision", "limit", "budget-remaining", "of-tomorrow"] {
            let name = HeaderName::try_from(format!("x-tollgate-{name}")).unwrap();
            headers.append(name.clone(), HeaderValue::from_static("1"));
            headers.append(name, HeaderValue::from_static("2"));
        }
        headers.insert("x-request-id", HeaderValue::from_static("1"));
        end(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-request-id"]);
    }
}

#[test]
fn a_cookie_that_http2_has_cut_is_one_field_again() {
    let joined = |version: Version| {
        let crumbs = http::Request::builder()
            .version(version)
            .uri("https://a.com/");
        let mut head = head(crumbs.header("cookie", "a=b").header("cookie", "c=d; e=f"));
        join_crumbs(&mut head);
        let fields = head.headers.get_all(header::COOKIE).iter();
        let fields = fields.map(|field| field.to_str().unwrap().to_owned());
        fields.collect::<Vec<_>>()
    };
    assert_eq!(joined(Version::HTTP_2), ["a=b; c=d; e=f"]);
    assert_eq!(joined(Version::HTTP_11), ["a=b", "c=d; e=f"]);
}

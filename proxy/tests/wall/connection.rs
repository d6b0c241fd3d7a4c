//! `Connection`, `Upgrade`, and what they name: RFC 9110, 7.6.1 and 7.8.

use testbed::Upstream;

use crate::stand::{Stand, one, statuses, with_lines};

#[tokio::test]
async fn what_sidelog_adds_can_not_be_named_away() {
    let config = "[[listeners]]\nforwarded = true\n";
    let stand = Stand::with(|command| {
        command
            .env("SIDELOG_TRACES__ENABLED", "true")
            .env("SIDELOG_CONFIG_TOML", config)
    })
    .await;
    for named in [
        "traceparent",
        "TraceParent, tracestate",
        "x-forwarded-for",
        "x-forwarded-proto, X-Forwarded-Host",
    ] {
        let answer = one(stand.address(), &with_lines(&format!("Connection: {named}\r\n"))).await;
        assert_eq!(statuses(&answer), [200], "{named}: {answer}");
        let received = stand.upstream.received();
        let headers = &received.last().unwrap().headers;
        for added in [
            "traceparent",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
        ] {
            assert!(headers.contains_key(added), "{named}: {added}: {headers:?}");
        }
        assert!(!headers.contains_key("connection"), "{headers:?}");
    }
}

#[tokio::test]
async fn other_fields_that_are_named_end_here() {
    let stand = Stand::start().await;
    let lines = "Connection: close, X-Hop\r\nX-Hop: a\r\nKeep-Alive: b\r\nX-End: c\r\nTE: trailers\r\nProxy-Authorization: d\r\n";
    let answer = one(stand.address(), &with_lines(lines)).await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    let received = stand.upstream.received();
    let headers = &received.last().unwrap().headers;
    assert!(
        !headers.contains_key("x-hop") && !headers.contains_key("keep-alive"),
        "{headers:?}"
    );
    for passed in ["x-end", "te", "proxy-authorization"] {
        assert!(headers.contains_key(passed), "{passed}: {headers:?}");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_known_is_served_without_it() {
    let stand = Stand::start().await;
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    let answer = one(stand.address(), &with_lines(lines)).await;
    assert_eq!(statuses(&answer), [200], "RFC 9110, 7.8: {answer}");
    let received: Vec<_> = Upstream::received(&stand.upstream);
    assert!(
        !received[0].headers.contains_key("upgrade"),
        "{:?}",
        received[0].headers
    );
    stand.clean().await;
}

#[tokio::test]
async fn an_upgrade_that_connection_does_not_name_asks_for_nothing() {
    let stand = Stand::start().await;
    for connection in ["", "Connection: keep-alive\r\n"] {
        let answer = one(
            stand.address(),
            &with_lines(&format!("{connection}Upgrade: websocket\r\n")),
        )
        .await;
        assert_eq!(statuses(&answer), [200], "RFC 9110, 7.8: {answer}");
        let received = stand.upstream.received();
        let headers = &received.last().unwrap().headers;
        assert!(
            !headers.contains_key("upgrade") && !headers.contains_key("connection"),
            "{headers:?}"
        );
        stand.clean().await;
    }
}

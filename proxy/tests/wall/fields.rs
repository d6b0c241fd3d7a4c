//! Header fields: RFC 9110, 5, and RFC 9112, 5.

use crate::stand::{Case, Stand, with_lines};

#[tokio::test]
async fn fields_have_one_reading() {
    let stand = Stand::start().await;
    let lines = [
        ("X: a\r\n folded\r\n", 400, "RFC 9112, 5.2"),
        ("X: a\r\n\tfolded: b\r\n", 400, "RFC 9112, 5.2"),
        ("X : a\r\n", 400, "RFC 9112, 5.1"),
        ("X\t: a\r\n", 400, "RFC 9112, 5.1"),
        (": a\r\n", 400, "RFC 9110, 5.1"),
        ("X\r\n", 400, "RFC 9112, 5"),
        ("X Y: a\r\n", 400, "RFC 9110, 5.1"),
        ("X(Y): a\r\n", 400, "RFC 9110, 5.1"),
        ("X\u{fc}: a\r\n", 400, "RFC 9110, 5.1"),
        ("X\0: a\r\n", 400, "RFC 9110, 5.1"),
        ("X: a\0b\r\n", 400, "RFC 9110, 5.5"),
        ("X: a\x01b\r\n", 400, "RFC 9110, 5.5"),
        ("X: a\x7fb\r\n", 400, "RFC 9110, 5.5"),
        ("X: a\rb\r\n", 400, "RFC 9110, 5.5"),
        ("X: a\nY: b\r\n", 400, "RFC 9112, 2.2"),
        ("X: a\r\r\n", 400, "RFC 9110, 5.5"),
        ("\n", 400, "RFC 9112, 2.2"),
        ("X:\r\nY:a\r\nx: b\r\nX: \u{fc}\t b \r\n", 200, "RFC 9110, 5.5"),
    ];
    for (lines, status, section) in lines {
        stand.check(&[(&with_lines(lines), status, section)]).await;
    }
    let latin = b"GET / HTTP/1.1\r\nHost: a.test\r\nX: \xfc\xff\r\n\r\n";
    stand.check(&[(latin, 200, "RFC 9110, 5.5: obs-text")]).await;
}

#[tokio::test]
async fn heads_have_limits_with_a_status_and_a_count() {
    let stand = Stand::start().await;
    let fields = |count: usize| with_lines(&"X: a\r\n".repeat(count - 1));
    let bytes = |count: usize| with_lines(&format!("X: {}\r\n", "a".repeat(count)));
    let cases: [Case<'_>; 4] = [
        // The upstream of this test takes 100, and the proxy adds one.
        (&fields(99), 200, "RFC 9110, 5.4"),
        (&bytes(16_000), 200, "RFC 9110, 5.4"),
        (&fields(201), 431, "RFC 6585, 5"),
        (&bytes(400_000), 431, "RFC 6585, 5"),
    ];
    stand.check(&cases).await;
    for limit in ["header_fields_max", "header_max"] {
        let label = format!("limit={limit:?}");
        let reached = stand.proxy.metric("sidelog_limits_reached_total", &label).await;
        assert!((reached - 1.0).abs() < f64::EPSILON, "{limit}: {reached}");
    }
}

//! Load on a proxy that counts which ways its code takes, for the compiler to read: `make profile`. What isn't here the compiler
//! takes for cold: TLS, compressed and chunked bodies, upgrades. Most bodies differ each time, as what came before isn't searched.

use std::time::Duration;

use crate::contender::{Contender, Sidelog};
use crate::load::{Load, NUMBER, ORDER};
use crate::parts;
use crate::rig::Rig;

/// Bodies of other kinds than the measured ones, with something to take out, and with a [`NUMBER`].
const BODIES: [(&str, &str); 6] = [
    (
        "application/json",
        r#"{"user":"ada","password":"hunter2","id":"@number@","note":"a \"quoted\" word\nand Bearer abcdefghijklmnop","card":"4111 1111 1111 1111","nested":{"api_key":["a",1,null]}}"#,
    ),
    (
        "application/x-www-form-urlencoded",
        "name=Ada+Lovelace&city=London&password=hunter2&page=@number@&note=a%20b%26c",
    ),
    (
        "application/xml",
        "<order id=\"@number@\"><name>Ada</name><password>hunter2</password><note>Ring &amp; wait</note></order>",
    ),
    (
        "multipart/form-data; boundary=x",
        "--x\r\ncontent-disposition: form-data; name=password\r\n\r\nhunter2\r\n--x\r\ncontent-disposition: form-data; name=note\r\n\r\nRing twice at @number@\r\n--x--\r\n",
    ),
    (
        "text/plain; charset=utf-8",
        "2026-01-31T12:00:00Z INFO took @number@ ms to answer GET /api/v1/users?page=2, token=abcdefgh\n",
    ),
    (
        "application/x-ndjson",
        "{\"id\":\"@number@\",\"token\":\"abc\"}\n{\"id\":2,\"name\":\"Ada\"}\n",
    ),
];

/// Puts a proxy under each load for so long, the last time without NATS and a collector.
pub(crate) async fn run(rig: &Rig, time: Duration) {
    let get = Load::get("/1k");
    let browser = [
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
        ),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "session=0123456789abcdef; theme=dark"),
        ("authorization", "Bearer abcdefghijklmnopqrstuvwxyz"),
        ("x-request-id", "0af7651916cd43dd8448eb211c80319c"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1"),
    ];
    let of_a_browser = Load {
        headers: browser
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Load::get("/1k-anew?page=2&token=abc")
    };
    let others = BODIES.map(|(content_type, body)| Load {
        headers: vec![("content-type".to_owned(), content_type.to_owned())],
        ..Load::post("/1k-anew", body)
    });
    assert!(BODIES.iter().all(|(_, body)| body.contains(NUMBER)), "each is searched");
    let by_http1 = [
        get.clone(),
        Load::get("/1k-anew"),
        of_a_browser,
        Load::post("/1k", ORDER),
        parts::post_anew(),
    ];
    let large = ["/64k", "/64k-anew"].map(parts::large);
    for load in by_http1.into_iter().chain(large).chain(others) {
        trained(Contender::sidelog(rig, rig.upstream, &parts::full()).await, &load, time).await;
    }
    for (upstream, load) in [
        (rig.upstream_h2, parts::by_http2(get.clone())),
        (rig.grpc, parts::grpc()),
    ] {
        trained(Contender::sidelog(rig, upstream, &parts::full()).await, &load, time).await;
    }
    let away = Sidelog {
        healthy: false,
        ..parts::full()
    };
    trained(
        Contender::sidelog(rig, rig.upstream, &away).await,
        &parts::post_anew(),
        time,
    )
    .await;
}

async fn trained(contender: Contender, load: &Load, time: Duration) {
    let ran = load.run(contender.address, time);
    assert!(ran.answered > 0 && ran.failed == 0, "{load:?}: {ran:?}");
    println!(
        "{} requests of {} {}",
        ran.answered,
        load.path,
        load.headers.first().map_or("", |(_, value)| value)
    );
    contender.rests().await;
    contender.end();
}

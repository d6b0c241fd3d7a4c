//! NATS that is full, small, slow, or only half there.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use testbed::{NatsServer, Port};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::stand::{Stored, Traffic, balanced, proxy, settled, upstream};

/// How a way to NATS behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Each piece of data takes this long.
    Slow(Duration),
    /// Connections made before carry nothing any more, and nobody is told; new ones are well.
    HalfOpen,
}

/// A way to `nats` that can be spoilt.
async fn relay(nats: &NatsServer, way: Way) -> (String, watch::Sender<Way>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let server = nats.url().trim_start_matches("nats://").to_owned();
    let (sender, way) = watch::channel(way);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let Ok(server) = TcpStream::connect(&server).await else {
                continue;
            };
            let mut way = way.clone();
            way.mark_unchanged();
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            tokio::spawn(pump(client_in, server_out, way.clone()));
            tokio::spawn(pump(server_in, client_out, way));
        }
    });
    (url, sender)
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut way: watch::Receiver<Way>) {
    let mut data = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut data) => read,
            changed = way.changed() => {
                if changed.is_ok() && *way.borrow() == Way::HalfOpen {
                    return std::future::pending().await;
                }
                continue;
            }
        };
        let Ok(read @ 1..) = read else { return };
        let pace = *way.borrow();
        if let Way::Slow(time) = pace {
            tokio::time::sleep(time).await;
        }
        if to.write_all(&data[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_room_is_waited_for_and_not_hammered() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let full = Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        discard: DiscardPolicy::New,
        max_bytes: 600 * 1024,
        ..Config::default()
    };
    let jetstream = nats.jetstream().await;
    jetstream.create_stream(full.clone()).await.unwrap();
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&proxy, 0, 3_000, 300).end().await;
    balanced(&proxy, "what has no room goes to disk", |balance| {
        balance.spooled() > 0 && balance.queued() + balance.building() == 0
    })
    .await;
    let published = async || nats.monitoring("/varz").await["in_msgs"].as_u64().unwrap();
    let before = published().await;
    Traffic::start(&proxy, 3_000, 6_000, 300).end().await;
    let attempts = published().await - before;
    assert!(attempts < 100, "{attempts} messages to a stream that is full");

    let roomy = Config {
        max_bytes: 64 * 1024 * 1024,
        ..full
    };
    jetstream.update_stream(roomy).await.unwrap();
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (6_000, 0));
    Stored::of(&nats).await.assert_whole(6_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_larger_than_the_streams_limit_are_told_and_the_others_stored() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let small = Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        max_message_size: 6_000,
        ..Config::default()
    };
    nats.jetstream().await.create_stream(small).await.unwrap();
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&proxy, 0, 500, 300).end().await;
    Traffic::start(&proxy, 500, 503, 20_000).end().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped_for("max_payload")), (500, 3));
    let misfit = "the stream's max_msg_size (6000B) is less than frame.max_bytes (256KiB)";
    assert_eq!(proxy.output().matches(misfit).count(), 1, "{}", proxy.output());
    let stored = Stored::of(&nats).await;
    assert!(
        stored.ids.iter().all(|id| !id.contains('+')),
        "frames are made to fit: {:?}",
        stored.ids
    );
    stored.assert_whole(500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_is_made_again() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&proxy, 0, 500, 300).end().await;
    settled(&proxy).await;
    nats.jetstream().await.delete_stream("logs").await.unwrap();
    Traffic::start(&proxy, 500, 1_500, 300).end().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (1_500, 0));
    assert_eq!(Stored::of(&nats).await.exchanges.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_made_for_the_servers_max_payload_from_the_start_and_larger_records_are_told() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::with_config("max_payload: 8192").await;
    let mut proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&proxy, 0, 2_000, 300).end().await;
    Traffic::start(&proxy, 2_000, 2_005, 20_000).end().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped_for("max_payload")), (2_000, 5));
    for told in [
        "the server's max_payload (8KiB) is less than frame.max_bytes (256KiB)",
        "the server's max_payload (8KiB) is less than a record with two bodies of capture.body_max (64KiB)",
        "records are larger than NATS takes and were dropped",
    ] {
        assert_eq!(proxy.output().matches(told).count(), 1, "{}", proxy.output());
    }
    proxy.terminate();
    proxy.exit_status(Duration::from_secs(10)).await;
    let stored = Stored::of(&nats).await;
    assert_eq!(stored.losses, [("max_payload".to_owned(), 5)].into());
    assert!(
        stored.ids.iter().all(|id| !id.contains('+')),
        "frames are made to fit: {:?}",
        stored.ids
    );
    stored.assert_whole(2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_max_payload_that_became_smaller_takes_what_was_spooled_in_pieces() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let mut nats = NatsServer::start().await;
    nats.kill();
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&proxy, 0, 2_000, 300).end().await;
    nats.configure("max_payload: 8192");
    nats.restart().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (2_000, 0));
    let stored = Stored::of(&nats).await;
    assert!(stored.ids.iter().any(|id| id.contains('+')), "{:?}", stored.ids);
    stored.assert_whole(2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_only_half_there_is_left_and_nothing_is_lost() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let (url, way) = relay(&nats, Way::Open).await;
    let proxy = proxy(&upstream, &url, spool.path(), &port).start().await;
    Traffic::start(&proxy, 0, 1_000, 300).end().await;
    settled(&proxy).await;
    way.send_replace(Way::HalfOpen);
    Traffic::start(&proxy, 1_000, 4_000, 300).end().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (4_000, 0));
    Stored::of(&nats).await.assert_whole(4_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_nats_slows_nothing_down() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let (url, way) = relay(&nats, Way::Slow(Duration::from_millis(200))).await;
    let proxy = proxy(&upstream, &url, spool.path(), &port)
        .env("SIDELOG_PUBLISH__WINDOW", "2")
        .env("SIDELOG_FRAME__MAX_RECORDS", "16");
    let proxy = proxy.start().await;
    Traffic::start(&proxy, 0, 6_000, 300).end().await;
    let slow = balanced(&proxy, "what is too much goes to disk", |balance| balance.spooled() > 0).await;
    assert_eq!(slow.dropped(), 0);
    way.send_replace(Way::Open);
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (6_000, 0));
    Stored::of(&nats).await.assert_whole(6_000);
}

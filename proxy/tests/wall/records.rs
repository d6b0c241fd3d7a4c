//! Who is refused is on record.

use async_nats::jetstream;
use serde_json::Value;
use testbed::{NatsServer, wait};

use crate::stand::{Stand, all, statuses};

#[tokio::test]
async fn each_refusal_has_one_record_with_its_reason() {
    let nats = NatsServer::start().await;
    let stand = Stand::with(|command| {
        command
            .env("SIDELOG_CAPTURE__ENABLED", "true")
            .env("NATS_URL", nats.url())
    })
    .await;
    let cases: [(&[u8], u16, &str); 5] = [
        (
            b"GET /a?token=SECRET HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
            "host",
        ),
        (b"GET /a HTTP/3.0\r\n", 505, "version"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, "connect"),
        (
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            "unknown_coding",
        ),
        (
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            400,
            "chunk",
        ),
    ];
    for (request, status, _) in cases {
        assert_eq!(statuses(&all(stand.address(), request).await), [status]);
    }
    let context = nats.jetstream().await;
    let records = wait::obtain("the records are in the stream", async || {
        let found = records(&context).await;
        (found.len() >= cases.len()).then_some(found)
    })
    .await;
    assert_eq!(records.len(), cases.len(), "{records:?}");
    for (record, (_, status, reason)) in records.iter().zip(cases) {
        assert_eq!(record["end"], "rejected", "{record}");
        assert_eq!(record["error.type"], reason, "{record}");
        assert_eq!(record["http.response.status_code"], status, "{record}");
        assert!(!record.to_string().contains("SECRET"), "{record}");
    }
}

async fn records(context: &jetstream::Context) -> Vec<Value> {
    let Ok(stream) = context.get_stream("logs").await else {
        return Vec::new();
    };
    let mut records = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let lines = sidelog_record::frame::lines(&message.payload);
        records.extend(lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()));
    }
    records
}

//! Certificates: the store's, and ours.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use testbed::TlsDoor;
use testbed::wait::until;

use crate::bench::{Bench, frame, line};

/// Writes `ca.pem`, and for `server` and `client` a certificate and its key.
#[expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it needs it"
)]
fn write_certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[tokio::test]
async fn the_store_is_checked_and_shown_our_certificate_and_what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let file = |name: &str| folder.path().join(name);
    let bench = Bench::new().await;
    let door = TlsDoor::open(
        bench.loki.address(),
        &file("server.pem"),
        &file("server.key"),
        &file("ca.pem"),
    );
    let with = |ca: &str, certificate: Option<&str>| {
        let command = bench
            .consumer()
            .env("LOKI_URL", format!("https://{}/loki/api/v1/push", door.address()))
            .env("SIDELOG_LOKI__TLS__CA_FILE", file(ca).display());
        match certificate {
            Some(name) => command
                .env("SIDELOG_LOKI__TLS__CERT_FILE", file(&format!("{name}.pem")).display())
                .env("SIDELOG_LOKI__TLS__KEY_FILE", file(&format!("{name}.key")).display()),
            None => command,
        }
    };
    bench.publish(frame(&[line(1)])).await;
    // A store that another authority vouches for, and a consumer that shows no certificate.
    for (ca, certificate) in [("client.pem", Some("client")), ("ca.pem", None)] {
        let consumer = with(ca, certificate).start().await;
        until("the operator is told", async || {
            let output = consumer.output();
            output.contains("failed to reach the store") && output.contains("ertificate")
        })
        .await;
        assert_eq!(
            consumer.output().matches("ertificate").count(),
            1,
            "{}",
            consumer.output()
        );
        assert_eq!(bench.loki.count(), 0);
    }
    let _consumer = with("ca.pem", Some("client")).start().await;
    bench.all_acknowledged().await;
    assert_eq!(bench.loki.count(), 1);
}

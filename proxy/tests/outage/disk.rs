//! Disks that are full, read-only or gone: frames stay in memory, traffic goes on, and what is lost is told.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testbed::{NatsServer, Port};

use crate::stand::{Balance, Stored, Traffic, balanced, proxy, settled, upstream};

const WARNING: &str = "the spool can't be used";

/// A small file system in memory, if we may mount one.
struct Mount(TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let mount = Self(tempfile::tempdir().unwrap());
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(mount.path());
        if command.status().is_ok_and(|status| status.success()) {
            return Some(mount);
        }
        eprintln!("SKIPPED: this test needs to mount a tmpfs ({options}), which takes root");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It fails where nothing was mounted.
        drop(Command::new("umount").arg("-l").arg(self.path()).output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_disk_is_full_the_rest_stays_in_memory() {
    let Some(disk) = Mount::new("size=1m") else { return };
    let (upstream, port) = (upstream(), Port::reserve());
    let mut nats = NatsServer::start().await;
    nats.kill();
    let proxy = proxy(&upstream, &nats.url(), disk.path(), &port).start().await;
    Traffic::start(&proxy, 0, 4_000, 300).end().await;
    let full = balanced(&proxy, "the disk is full", |balance| balance.spool_errors() > 0).await;
    assert_eq!(full.dropped(), 0);
    nats.restart().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (4_000, 0));
    assert_eq!(proxy.output().matches(WARNING).count(), 1, "{}", proxy.output());
    Stored::of(&nats).await.assert_whole(4_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_always_a_full_disk_does_not_hold_records_up() {
    let Some(disk) = Mount::new("size=16k") else { return };
    let (upstream, port) = (upstream(), Port::reserve());
    let nats = NatsServer::start().await;
    let proxy = proxy(&upstream, &nats.url(), disk.path(), &port).env("SIDELOG_SPOOL__MODE", "always");
    let proxy = proxy.start().await;
    Traffic::start(&proxy, 0, 3_000, 300).end().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (3_000, 0));
    assert!(balance.spool_errors() > 0);
    Stored::of(&nats).await.assert_whole(3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_is_a_warning_and_no_more() {
    let Some(disk) = Mount::new("ro,size=1m") else { return };
    let (upstream, port) = (upstream(), Port::reserve());
    let mut nats = NatsServer::start().await;
    let proxy = proxy(&upstream, &nats.url(), disk.path(), &port).start().await;
    Traffic::start(&proxy, 0, 500, 300).end().await;
    nats.kill();
    Traffic::start(&proxy, 500, 1_500, 300).end().await;
    nats.restart().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (1_500, 0));
    assert_eq!(proxy.output().matches(WARNING).count(), 1, "{}", proxy.output());
    Stored::of(&nats).await.assert_whole(1_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vanishes_with_the_folder_is_counted_and_told_in_a_loss_record() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let mut nats = NatsServer::start().await;
    nats.kill();
    let mut proxy = proxy(&upstream, &nats.url(), spool.path(), &port).start().await;
    Traffic::start(&proxy, 0, 2_000, 300).end().await;
    balanced(&proxy, "all frames are on disk", |balance| balance.spooled() == 2_000).await;
    std::fs::remove_dir_all(spool.path().join(format!("api-service-{}", port.number()))).unwrap();
    Traffic::start(&proxy, 2_000, 3_000, 300).end().await;
    balanced(&proxy, "the loss is found", |balance| {
        balance.dropped_for("spool_damaged") == 2_000
    })
    .await;
    nats.restart().await;
    settled(&proxy).await;
    assert_eq!(Balance::of(&proxy).await.shipped(), 1_000);
    proxy.terminate();
    let status = proxy.exit_status(Duration::from_secs(10)).await;
    assert!(status.success(), "{}", proxy.output());
    let stored = Stored::of(&nats).await;
    assert_eq!(stored.losses, [("spool_damaged".to_owned(), 2_000)].into());
    assert_eq!((stored.exchanges.len(), stored.doubled()), (1_000, 0));
}

/// A pipe in place of the lock: whoever opens it waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_holds_up_neither_records_nor_the_end() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let folder = spool.path().join(format!("api-service-{}", port.number()));
    std::fs::create_dir(&folder).unwrap();
    let made = Command::new("mkfifo").arg(folder.join("lock")).status().unwrap();
    assert!(made.success());
    let nats = NatsServer::start().await;
    let proxy = proxy(&upstream, &nats.url(), spool.path(), &port).env("SIDELOG_SPOOL__MODE", "always");
    let mut proxy = proxy.start().await;
    Traffic::start(&proxy, 0, 2_000, 300).end().await;
    let balance = settled(&proxy).await;
    assert_eq!((balance.shipped(), balance.dropped()), (2_000, 0));
    proxy.terminate();
    let status = proxy.exit_status(Duration::from_secs(10)).await;
    assert!(status.success(), "{}", proxy.output());
    Stored::of(&nats).await.assert_whole(2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_proxies_of_one_name_and_port_number_do_not_share() {
    let (upstream, port, spool) = (upstream(), Port::reserve(), tempfile::tempdir().unwrap());
    let nats = NatsServer::start().await;
    let at = |ip: &str| {
        proxy(&upstream, &nats.url(), spool.path(), &port)
            .without_env("PORT")
            .env("SIDELOG_LISTENERS__0__ADDRESS", format!("{ip}:{}", port.number()))
    };
    let _first = at("127.0.0.1").start().await;
    let second = at("127.0.0.2").start().await;
    let balance = balanced(&second, "the folder is refused", |balance| balance.spool_errors() > 0).await;
    assert_eq!(balance.recovered(), 0);
    assert!(
        second.output().contains("is in use by another proxy"),
        "{}",
        second.output()
    );
}

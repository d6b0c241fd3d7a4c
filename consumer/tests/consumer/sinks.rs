//! Files and standard output.

use std::fs;
use std::time::Duration;

use testbed::wait::until;

use crate::bench::{Bench, frame, line, sorted};

#[tokio::test]
async fn the_file_sink_appends_whole_lines_and_goes_on_after_a_crash() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.ndjson");
    let command = || {
        let command = bench.consumer().env("SIDELOG_SINK__KIND", "file");
        command.env("SIDELOG_SINK__PATH", path.display())
    };
    let lines: Vec<_> = (0..40).map(line).collect();
    let mut first = command().start().await;
    bench.publish(frame(&lines[..20])).await;
    bench.all_acknowledged().await;
    first.kill();
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"{\"torn");
    fs::write(&path, torn).unwrap();

    let mut second = command().start().await;
    bench.publish(frame(&lines[20..])).await;
    bench.all_acknowledged().await;
    assert_eq!(fs::read_to_string(&path).unwrap(), frame(&lines));
    second.terminate();
    assert_eq!(second.exit_status(Duration::from_secs(3)).await.code(), Some(0));
}

#[tokio::test]
async fn full_files_are_renamed_and_together_hold_every_record_once() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.ndjson");
    let command = || {
        let command = bench.consumer().env("SIDELOG_SINK__KIND", "file");
        command
            .env("SIDELOG_SINK__PATH", path.display())
            .env("SIDELOG_SINK__SYNC", "system")
            .env("SIDELOG_SINK__ROTATE_BYTES", "20KiB")
    };
    let lines: Vec<_> = (0..300).map(line).collect();
    for part in lines.chunks(150) {
        let mut consumer = command().start().await;
        for lines in part.chunks(10) {
            bench.publish(frame(lines)).await;
            bench.all_acknowledged().await;
        }
        consumer.kill();
    }
    let files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() > 3, "{files:?}");
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    let stored: Vec<String> = texts
        .inspect(|text| assert!(text.len() <= 20 * 1024 && text.ends_with('\n')))
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(sorted(stored), sorted(lines));
}

#[tokio::test]
async fn a_file_that_can_not_be_written_is_waited_for_and_the_operator_is_told() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("records.ndjson");
    let consumer = bench
        .consumer()
        .env("SIDELOG_SINK__KIND", "file")
        .env("SIDELOG_SINK__PATH", path.display())
        .start()
        .await;
    let line = line(1);
    bench.publish(frame(&[&line])).await;
    until("the operator is told", async || {
        let output = consumer.output();
        output.contains("failed to write") && output.contains("(sink.path)")
    })
    .await;
    fs::create_dir(folder.path().join("missing")).unwrap();
    bench.all_acknowledged().await;
    assert_eq!(fs::read_to_string(&path).unwrap(), frame(&[line]));
}

#[tokio::test]
async fn the_stdout_sink_writes_a_record_a_line() {
    let bench = Bench::new().await;
    let consumer = bench.consumer().env("SIDELOG_SINK__KIND", "stdout").start().await;
    let lines: Vec<_> = (0..3).map(line).collect();
    bench.publish(frame(&lines)).await;
    bench.all_acknowledged().await;
    let output = consumer.output();
    let records: Vec<_> = output.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(records, lines);
}

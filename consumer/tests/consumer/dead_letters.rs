//! The commands that list dead letters and resend them.

use testbed::{Finished, Sidelog};

use crate::bench::{Bench, dead_letters, frame, line, sorted};

/// Runs `dead-letters` with these arguments, quietly, so that its output is what it prints.
async fn run(bench: &Bench, arguments: &[&str]) -> Finished {
    let command = Sidelog::consumer()
        .env("NATS_URL", bench.nats.url())
        .env("SIDELOG_LOG__LEVEL", "warn")
        .arg("dead-letters");
    let command = arguments
        .iter()
        .fold(command, |command, argument| command.arg(argument));
    command.finish().await
}

/// Ten records of each of two services, all refused by the store, and a line that is none.
async fn with_letters() -> (Bench, Vec<String>) {
    let bench = Bench::new().await;
    bench
        .loki
        .refuse(|_| Some("entry for stream '{}' has timestamp too new: 2099-01-01T00:00:00Z".to_owned()));
    let mut consumer = bench.consumer().start().await;
    let lines: Vec<_> = (0..20)
        .map(|number| match number % 2 {
            0 => line(number),
            _ => line(number).replace("api-service", "web"),
        })
        .collect();
    bench.publish(frame(&lines)).await;
    bench.publish("no record").await;
    dead_letters(&bench.nats.jetstream().await, 21).await;
    bench.all_acknowledged().await;
    consumer.kill();
    bench.loki.refuse(|_| None);
    (bench, lines)
}

#[tokio::test]
async fn letters_are_listed_as_a_table_and_as_json_by_reason_and_service() {
    let (bench, lines) = with_letters().await;
    let table = run(&bench, &["list"]).await;
    assert_eq!(table.code, Some(0), "{}", table.output);
    assert_eq!(
        table.output.lines().count(),
        22,
        "a heading and the letters: {}",
        table.output
    );
    assert!(table.output.starts_with("SEQUENCE"));
    for told in ["too_new", "not_json", "web", "api-service", "timestamp too new"] {
        assert!(table.output.contains(told), "{told}: {}", table.output);
    }
    for (arguments, count) in [
        (&["list", "--json", "--reason", "too_new"][..], 20),
        (&["list", "--json", "--service", "web"], 10),
        (&["list", "--json", "--service", "web", "--reason", "not_json"], 0),
        (&["list", "--json", "--limit", "3"], 3),
    ] {
        let listed = run(&bench, arguments).await;
        assert_eq!(listed.code, Some(0), "{}", listed.output);
        assert_eq!(listed.output.lines().count(), count, "{arguments:?}: {}", listed.output);
    }
    let listed = run(&bench, &["list", "--json", "--reason", "too_new"]).await;
    let shown = listed.output.lines().map(|line| {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(letter["origin_sequence"], 1);
        letter["line"].as_str().unwrap().to_owned()
    });
    assert_eq!(sorted(shown.collect()), sorted(lines));
}

#[tokio::test]
async fn resent_letters_are_stored_and_gone_and_the_others_stay() {
    let (bench, lines) = with_letters().await;
    let tried = run(&bench, &["resend", "--dry-run", "--service", "web"]).await;
    assert_eq!(tried.output.lines().count(), 11, "{}", tried.output);
    dead_letters(&bench.nats.jetstream().await, 21).await;

    let resent = run(&bench, &["resend", "--service", "web"]).await;
    assert_eq!(
        (resent.code, resent.output.as_str()),
        (Some(0), "letters resent to logs: 10\n")
    );
    let left = dead_letters(&bench.nats.jetstream().await, 11).await;
    assert!(left.iter().all(|dead| !dead.subject.ends_with("web")));
    let _consumer = bench.consumer().start().await;
    bench.loki.stores(10).await;
    bench.all_acknowledged().await;
    let of_web: Vec<_> = lines.into_iter().filter(|line| line.contains("\"web\"")).collect();
    assert_eq!(sorted(bench.loki.lines()), sorted(of_web));

    // What comes back while it is being resent is not sent round and round.
    let resent = run(&bench, &["resend", "--reason", "not_json"]).await;
    assert_eq!(resent.output, "letters resent to logs: 1\n");
}

#[tokio::test]
async fn without_letters_or_without_a_server_it_says_so() {
    let bench = Bench::new().await;
    for command in ["list", "resend"] {
        let empty = run(&bench, &[command]).await;
        assert_eq!((empty.code, empty.output.as_str()), (Some(0), ""));
    }
    let mut bench = bench;
    bench.nats.stop().await;
    let away = run(&bench, &["list"]).await;
    assert_eq!(away.code, Some(1));
    assert!(away.output.contains("nats.url"), "{}", away.output);
}

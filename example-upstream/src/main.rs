//! Runs the example: reads the environment, binds, serves until SIGTERM or SIGINT.
//!
//! Environment: `LISTEN` (default `127.0.0.1:9000`; port 0 takes a free one), `RUST_LOG` (default `info`),
//! `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME` (see [`example_upstream::telemetry`]).
//! Exit status: 0 after a shutdown by signal, 1 when it could not start or serve.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use anyhow::Context;
use axum::serve::ListenerExt;
use example_upstream::telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:9000".to_owned());
    // Handlers first: a signal that comes while we start must not be missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(&address).await.with_context(|| {
        format!("cannot listen on {address}: set LISTEN to a free address:port such as 127.0.0.1:9000")
    })?;
    let telemetry = Telemetry::from_env()?;
    let mut app = example_upstream::router();
    if let Some(telemetry) = &telemetry {
        app = telemetry.trace(app);
    }
    tracing::info!("listening on http://{}", listener.local_addr()?);
    // Small answers go out at once; else HTTP/2 waits up to 40 ms for an acknowledgement (Nagle).
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
    });
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("shutting down");
        })
        .await?;
    if let Some(telemetry) = telemetry {
        telemetry.flush().await;
    }
    Ok(())
}

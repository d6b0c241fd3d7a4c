//! One HTTP request to the store, and the answer to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Identity, RequestBuilder, Response, StatusCode};

use crate::answer::{Answer, Hold};
use crate::metrics::{Metrics, StatusLabel};
use crate::settings::{LokiSettings, LokiTls, PushUrl};

use super::answer::judge;
use super::wire;

/// The tenant of a push, in a Loki that serves several.
const TENANT_HEADER: &str = "X-Scope-OrgID";

/// How much of an answer's text is read: enough for Loki's reason.
const TEXT_MAX: usize = 1024;

/// Sends bodies to the push endpoint.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: PushUrl,
    tenant: Option<HeaderValue>,
    credentials: Option<Credentials>,
    metrics: Metrics,
}

/// Who we say we are. The secrets are in files, and read when they are needed.
#[derive(Debug)]
enum Credentials {
    Basic { user: String, password_file: PathBuf },
    Bearer { token_file: PathBuf },
}

impl Client {
    pub(super) fn new(settings: &LokiSettings, metrics: Metrics) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("sidelog-consumer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.timeout)
            .timeout(settings.timeout)
            // A redirected POST would become a GET.
            .redirect(reqwest::redirect::Policy::none());
        let encrypted = settings.url.get().scheme() == "https";
        let http = with_tls(builder, &settings.tls, encrypted)?
            .build()
            .context("failed to set up HTTP for loki.url; for https the system needs its CA certificates, or set loki.tls.ca_file")?;
        let tenant = settings
            .tenant
            .as_deref()
            .map(HeaderValue::from_str)
            .transpose()
            .context("loki.tenant: a tenant has no control characters")?;
        let credentials = credentials(settings);
        if let Some(credentials) = &credentials {
            credentials.secret().map_err(anyhow::Error::msg)?;
        }
        Ok(Self {
            http,
            url: settings.url.clone(),
            tenant,
            credentials,
            metrics,
        })
    }

    /// Sends one body, once.
    pub(super) async fn send(&self, body: Bytes) -> Answer {
        let request = match self.request(body) {
            Ok(request) => request,
            Err(advice) => return hold("credentials", advice),
        };
        let started = Instant::now();
        let sent = request.send().await;
        self.metrics.push_seconds.observe(started.elapsed().as_secs_f64());
        let status = sent
            .as_ref()
            .map_or_else(|_| "error".to_owned(), |answer| answer.status().as_str().to_owned());
        self.metrics.pushes.get_or_create(&StatusLabel { status }).inc();
        match sent {
            Ok(response) => answer(response).await,
            Err(error) => hold("unreachable", self.unreachable(error)),
        }
    }

    fn request(&self, body: Bytes) -> Result<RequestBuilder, String> {
        let mut request = self
            .http
            .post(self.url.get().clone())
            .header(CONTENT_TYPE, wire::CONTENT_TYPE)
            .body(body);
        if let Some(tenant) = &self.tenant {
            request = request.header(TENANT_HEADER, tenant.clone());
        }
        Ok(match &self.credentials {
            None => request,
            Some(credentials) => {
                let secret = credentials.secret()?;
                match credentials {
                    Credentials::Basic { user, .. } => request.basic_auth(user, Some(secret)),
                    Credentials::Bearer { .. } => request.bearer_auth(secret),
                }
            }
        })
    }

    fn unreachable(&self, error: reqwest::Error) -> String {
        let timed_out = error.is_timeout();
        let error = anyhow::Error::new(error.without_url());
        let hint = if timed_out { " within loki.timeout" } else { "" };
        format!(
            "failed to reach the store at {} (loki.url){hint}: {error:#}; the records wait in JetStream",
            self.url
        )
    }
}

async fn answer(mut response: Response) -> Answer {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).cloned();
    let text = if status == StatusCode::NO_CONTENT {
        String::new()
    } else {
        text(&mut response).await
    };
    let retry_after = retry_after.as_ref().and_then(|value| value.to_str().ok());
    judge(status, retry_after, &text)
}

/// The beginning of an answer's body as one line of text. A body that breaks off is as good as a short one.
async fn text(response: &mut Response) -> String {
    let mut body = BytesMut::new();
    while body.len() < TEXT_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(TEXT_MAX);
    let text = String::from_utf8_lossy(&body);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn hold(kind: &'static str, advice: String) -> Answer {
    Answer::Hold(Hold::of_store(kind, advice))
}

fn credentials(settings: &LokiSettings) -> Option<Credentials> {
    if let Some(basic) = &settings.basic_auth {
        return Some(Credentials::Basic {
            user: basic.user.clone(),
            password_file: basic.password_file.clone(),
        });
    }
    let token_file = settings.bearer_token_file.clone()?;
    Some(Credentials::Bearer { token_file })
}

impl Credentials {
    /// The password or token: the file's text without the newline at its end.
    fn secret(&self) -> Result<String, String> {
        let (key, path) = match self {
            Self::Basic { password_file, .. } => ("loki.basic_auth.password_file", password_file),
            Self::Bearer { token_file } => ("loki.bearer_token_file", token_file),
        };
        let text =
            fs::read_to_string(path).map_err(|error| format!("{key}: failed to read {}: {error}", path.display()))?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() || secret.contains(char::is_control) {
            return Err(format!(
                "{key}: {} must hold one line of text, the secret",
                path.display()
            ));
        }
        Ok(secret.to_owned())
    }
}

/// Own roots instead of the system's, and a certificate of our own. Without https no roots are loaded: a container
/// without CA certificates can still push over http.
fn with_tls(builder: reqwest::ClientBuilder, tls: &LokiTls, encrypted: bool) -> anyhow::Result<reqwest::ClientBuilder> {
    let mut builder = match &tls.ca_file {
        Some(path) => {
            let pem = read("loki.tls.ca_file", path)?;
            let roots = Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("loki.tls.ca_file: {} is not a PEM file of certificates", path.display()))?;
            anyhow::ensure!(
                !roots.is_empty(),
                "loki.tls.ca_file: there is no certificate in {}",
                path.display()
            );
            builder.tls_certs_only(roots)
        }
        None if !encrypted => builder.tls_certs_only([]),
        None => builder,
    };
    if let (Some(certificate), Some(key)) = (&tls.cert_file, &tls.key_file) {
        let mut pem = read("loki.tls.cert_file", certificate)?;
        pem.push(b'\n');
        pem.extend(read("loki.tls.key_file", key)?);
        let identity = Identity::from_pem(&pem)
            .context("loki.tls.cert_file and loki.tls.key_file must be PEM files of a certificate and its key")?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn read(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{key}: failed to read {}", path.display()))
}

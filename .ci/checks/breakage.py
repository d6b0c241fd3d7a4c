"""Breaks a copy of the stack's files, one fault at a time: a check that finds nothing in a copy is no check."""

import contextlib
import pathlib
import shutil
import tempfile

import compose
import files
import grafana
import prometheus
from report import REPOSITORY, Report

ALERTS = "config/prometheus/alerts.yaml"
BOARD = "config/grafana/dashboards/microservices-logs.json"
SOURCES = grafana.DATASOURCES

# (file, what stands there, what is put in its place, a word that the failure must say)
FAULTS = [
    ("compose.yml", "  nats:\n    <<: *container", "  nats:\n      <<: *container", "yamllint"),
    ("compose.yml", "healthcheck: { disable: true }", "healthchecks: { disable: true }", "compose-go"),
    ("compose.yml", "nats: { condition: service_healthy }", "nat: { condition: service_healthy }", "compose-go"),
    ("compose.yml", "nats: { condition: service_healthy }", "nats: { condition: service_started }", "waits for"),
    ("compose.yml", "image: grafana/loki:3.7.8", "image: grafana/loki:latest", "has a version"),
    ("compose.yml", "sidelog-consumer:0.1.0", "sidelog-consumer:0.0.9", "the workspace's"),
    ("compose.yml", 'user: "472:0"', 'user: "0:0"', "not root"),
    ("compose.yml", "cap_drop: [ALL]", "cap_drop: [SYS_ADMIN]", "all capabilities"),
    ("compose.yml", "test: [CMD, /usr/bin/loki, -health]", "disable: true", "health check"),
    ("compose.yml", 'limits: { cpus: "2", memory: 1G }', 'limits: { cpus: "2" }', "are limited"),
    ("compose.yml", "target: consumer }", "target: consumers }", "has a target"),
    ("compose.yml", 'ports: ["127.0.0.1:8080:8080"]', 'ports: ["127.0.0.1:8000:8080"]', "published ports"),
    ("compose.yml", "SERVICE_NAME: api-service", "SERVICENAME: api-service", "knows the variable"),
    ("compose.yml", "LISTEN: 0.0.0.0:9000", "LISTENING: 0.0.0.0:9000", "knows the variable"),
    ("compose.yml", "NATS_MAX_AGE: 168h", "NATS_MAX_AGE: a week", "check, with the environment"),
    ("compose.yml", "SIDELOG_SPOOL__DIRECTORY", "SIDELOG_SPOOL__FOLDER", "check, with the environment"),
    ("compose.yml", "./config/nats/nats.conf:", "./config/nats.conf:", "is there"),
    ("config/compose.proxy.toml", 'path = "/health"', 'paths = "/health"', "check, with the environment"),
    ("Dockerfile", 'ENTRYPOINT ["/usr/bin/sidelog-consumer"]', 'ENTRYPOINT ["/usr/bin/consumer"]', "starts a binary"),
    ("Dockerfile", "USER 65532:65532", "USER root", "USER"),
    ("Dockerfile", "EXPOSE 8080 9901", "EXPOSE 8080", "exposes"),
    ("compose.yml", "curl:8.16.0@sha256:", "curl:8.16.0-", "has a digest"),
    ("Dockerfile", "rust:1.95.0-bookworm@sha256:", "rust:1.95.0-bookworm-", "has a digest"),
    ("config/load/visit.sh", '"$target/health"', "$target/health", "shellcheck"),
    (".dockerignore", "!record\n", "", "lets record through"),
    ("config/nats/nats.conf", "max_payload", "max_payloads", "nats-server"),
    ("config/loki/loki.yaml", "reject_old_samples_max_age", "reject_old_samples_age", "loki"),
    ("config/jaeger/jaeger.yaml", "ephemeral", "ephemerals", "jaeger"),
    (ALERTS, "(sidelog_spool_limit_bytes > 0) > 0.75", "(sidelog_spool_limit_bytes > 0) > 0.85", "SidelogSpoolFilling"),
    (ALERTS, "alert: SidelogDown", "alert: SidelogAway", "SidelogAway is tested"),
    ("config/prometheus/prometheus.yml", "rule_files", "rules", "promtool check config"),
    (SOURCES, "customQuery", "customQueries", "knows no"),
    (SOURCES, "datasourceUid: jaeger", "datasourceUid: tempo", "that is there"),
    (SOURCES, "http://loki:3100", "http://loki:3101", "compose.yml has"),
    (SOURCES, "matcherRegex: trace_id", "matcherRegex: traceid", "the consumer sends"),
    (SOURCES, '| trace_id="', '| trace="', "no record has"),
    (BOARD, '"wrapLogMessage"', '"wrapLogMessages"', "schema"),
    (BOARD, '"editorMode": "code"', '"editorMode": 1', "schema"),
    (BOARD, '"uid": "loki"', '"uid": "lokis"', "are provisioned"),
    (BOARD, '"title": "Microservices Logs"', '"title": "Microservice Logs"', "is called"),
    (BOARD, "sum by (service) (rate(", "sum by (service) (rates(", "Loki refuses it"),
    (BOARD, "sum by (http_response_status_code)", "sum by (http_status)", "no record has"),
    (BOARD, "http_route=~`$route`", "route=~`$route`", "no record has"),
    (BOARD, '{service=~\\"$service\\", env=~', '{service=~\\"$service\\", environment=~', "no record has"),
    (BOARD, 'duration_ms=\\"duration_ms\\"', 'duration_ms=\\"duration\\"', "no record has the JSON key"),
    (BOARD, "http.request.body.size", "http.request.body.bytes", "no record has the JSON key"),
    (BOARD, "{{.end}}", "{{.ending}}", "no record has"),
    (BOARD, "$slower_than", "$slower", "every variable is there"),
    (BOARD, 'level=\\"error\\"', 'level=\\"fatal\\"', "finds nothing"),
    (BOARD, '"label": "env"', '"label": "environment"', "the consumer sends a label"),
]


def check(loki, report):
    for path, old, new, word in FAULTS:
        with copy() as root:
            file = root / path
            text = file.read_text()
            if not report.expect(old in text, f"breakage: {path} holds {old!r}"):
                continue
            file.write_text(text.replace(old, new))
            found = failures(root, loki)
            said = any(word in failure for failure in found)
            report.expect(said, f"breakage: {new!r} in {path} is found ({word!r}), not only {found}")


def failures(root, loki):
    """What the checks say of a copy. The first part that finds something ends it: the rest is told nothing new."""
    report = Report("stack", silent=True)
    parts = [
        lambda: files.check(root, report, quick=True),
        lambda: files.check(root, report, quick=False),
        lambda: compose.check(root, report),
        lambda: grafana.check(root, report),
        lambda: prometheus.check(root, report),
        lambda: grafana.check_queries(root, loki, report),
    ]
    for part in parts:
        part()
        if report.failures:
            break
    return report.failures


@contextlib.contextmanager
def copy():
    """The stack's files in a folder of their own; the sources are linked, for they are only read."""
    with tempfile.TemporaryDirectory(prefix="sidelog-copy-") as folder:
        root = pathlib.Path(folder)
        for entry in REPOSITORY.iterdir():
            if entry.name == "config":
                shutil.copytree(entry, root / entry.name)
            elif entry.is_file():
                shutil.copy(entry, root / entry.name)
            elif not entry.name.startswith(".") and entry.name not in ("target", "demo"):
                (root / entry.name).symlink_to(entry)
        yield root

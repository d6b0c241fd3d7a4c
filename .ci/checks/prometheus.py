"""Alerts and the dashboards of metrics: every query is PromQL, and names only what our programs tell when they are asked; every
alert is silent when it should be and fires when it should; and what the programs tell is what Prometheus reads."""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import promql_parser
import yaml
from prometheus_client.openmetrics import parser as openmetrics

import grafana
from report import BINARIES, TOOLS, run

ALERTS = "config/prometheus/alerts.yaml"
TESTS = "config/prometheus/alerts.test.yaml"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# Prometheus's own.
KNOWN = {"up"}
PATIENCE = 20


def rules(root):
    groups = yaml.safe_load((root / ALERTS).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def check(root, report):
    """What can be said without a scrape."""
    found = rules(root)
    report.expect(found, "there are alerts")
    for rule in found:
        name = rule["alert"]
        keys = {"alert", "expr", "for", "labels", "annotations"}
        report.expect(rule.keys() <= keys, f"{ALERTS}: {name} has the keys of a rule")
        told = rule["annotations"].keys() == {"summary", "description"} and "severity" in rule["labels"]
        report.expect(told, f"{ALERTS}: {name} says how bad it is, what it means and what to do")
        report.expect(f'alertname="{name}"' in (root / TESTS).read_text(), f"{TESTS}: {name} is tested")
    folder = root / "config/prometheus"
    run([TOOLS / "promtool", "check", "config", "--syntax-only", "prometheus.yml"], report, "promtool check config", cwd=folder)
    run([TOOLS / "promtool", "check", "rules", "alerts.yaml"], report, "promtool check rules", cwd=folder)
    run([TOOLS / "promtool", "test", "rules", "alerts.test.yaml"], report, "promtool test rules", cwd=folder)

    for where, query in queries(root):
        try:
            promql_parser.parse(query)
        except ValueError as error:
            report.expect(False, f"{where}: {error}: {query}")


def queries(root):
    """Every PromQL query: (where it is, the query)."""
    return [(f"{ALERTS}: {rule['alert']}", rule["expr"]) for rule in rules(root)] + grafana.promql(root)


def check_live(root, report):
    """Each metric is one that a program told, or that its source registers: a counter by labels is told from its first count on."""
    told = KNOWN.union(*(scraped(program, root, report) for program in ("sidelog-proxy", "sidelog-consumer")))
    for where, query in queries(root):
        for metric in re.findall(r"\b(?:sidelog_\w+|up\b)", query):
            # A histogram's own series are told from its first observation on.
            family = re.sub(r"_(bucket|sum|count)$", "", metric)
            report.expect(metric in told or family in told, f"{where}: somebody tells {metric}")


def scraped(program, root, report):
    """The names that `program` tells on its page, and those of its source that have no samples yet. Each form of the page is read
    by the parser that is made for it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "PORT": "0",
            "NATS_URL": "nats://127.0.0.1:1",
            "SIDELOG_ADMIN__ADDRESS": "127.0.0.1:0",
            "TMPDIR": folder,
        }
        path = pathlib.Path(folder) / "log"
        with (
            path.open("w") as log,
            subprocess.Popen([BINARIES / program], env=environment, stdout=log, stderr=log) as process,
        ):
            try:
                admin = address(path, "admin(?: listening address)?")
                if program == "sidelog-proxy":
                    visit(address(path, "listening address"))
                page, others = metrics(admin), metrics(admin, OPEN_METRICS)
            finally:
                process.terminate()
    lint = [TOOLS / "promtool", "check", "metrics"]
    run(lint, report, f"promtool check metrics, of {program}", input=page)
    try:
        families = list(openmetrics.text_string_to_metric_families(others))
        report.expect(families, f"{program} tells something in OpenMetrics")
        for family in families:
            known = family.name.startswith("sidelog_") and family.documentation
            report.expect(known, f"{program}: {family.name} is ours and has a help text")
    except ValueError as error:
        report.expect(False, f"{program}: no OpenMetrics: {error}")
    names = set(re.findall(r"^(sidelog_\w+)", page, re.MULTILINE)) | set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    sources = (root / program.removeprefix("sidelog-") / "src").glob("metrics*")
    text = "".join(path.read_text() for path in sources if path.is_file())
    return names | {f"{name}_total" for name in re.findall(r'"(sidelog_\w+)"', text)}


def address(log, what):
    """The address that the program tells as `what` in its log, once it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        told = re.search(rf"{what}=(127\.0\.0\.1|0\.0\.0\.0):(\d+)", log.read_text())
        if told:
            return f"127.0.0.1:{told[2]}"
        time.sleep(0.05)
    raise TimeoutError(f"the program told no {what}")


def visit(proxy):
    """One exchange, so that histograms have a count and an exemplar; no service is there, so it is a 502."""
    request = urllib.request.Request(f"http://{proxy}/")
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=5)


def metrics(admin, accept="text/plain"):
    """The page `/metrics`, in the form that is asked for."""
    request = urllib.request.Request(f"http://{admin}/metrics", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=5) as page:
        return page.read().decode()

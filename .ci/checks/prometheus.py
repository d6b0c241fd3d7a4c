"""Alerts and the dashboards of metrics: every query is PromQL, and names only what our programs tell when they are asked."""

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

import grafana
from report import BINARIES

ALERTS = "config/prometheus/alerts.yaml"
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
    told = KNOWN.union(*(scraped(program, root) for program in ("sidelog-proxy", "sidelog-consumer")))
    for where, query in queries(root):
        for metric in re.findall(r"\b(?:sidelog_\w+|up\b)", query):
            # A histogram's own series are told from its first observation on.
            family = re.sub(r"_(bucket|sum|count)$", "", metric)
            report.expect(metric in told or family in told, f"{where}: somebody tells {metric}")


def scraped(program, root):
    """The names that `program` tells on its page, and those of its source that have no samples yet."""
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
                page = metrics(path)
            finally:
                process.terminate()
    names = set(re.findall(r"^(sidelog_\w+)", page, re.MULTILINE)) | set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    sources = (root / program.removeprefix("sidelog-") / "src").glob("metrics*")
    text = "".join(path.read_text() for path in sources if path.is_file())
    return names | {f"{name}_total" for name in re.findall(r'"(sidelog_\w+)"', text)}


def metrics(log):
    """The page `/metrics`, once the program has told where it is."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        address = re.search(r"admin(?: listening address)?=(127\.0\.0\.1:\d+)", log.read_text())
        if address:
            try:
                with urllib.request.urlopen(f"http://{address[1]}/metrics", timeout=5) as page:
                    return page.read().decode()
            except urllib.error.URLError:
                pass
        time.sleep(0.05)
    raise TimeoutError("the program told no admin address")

"""Files of charts/ that are made from others: `write` makes them, `check` finds those that were not made again.

    files/         copies of config/, for Helm reads only inside a chart
    README.md      by helm-docs, from README.md.gotmpl and the comments of values.yaml
    plain.yaml, sidecar.yaml  the examples and the kustomize component, from the chart's template: see `forms`
    tests/golden/  what comes out: each ci/*-values.yaml rendered, each application in each form. Where a copy of a file
                   of the chart comes out, the file's name stands
"""

import subprocess

import yaml

from kubernetes import forms, helm
from report import REPOSITORY, TOOLS, Report

GOLDEN = helm.CHART / "tests/golden"


def copies():
    """File of the chart → text of the file of config/."""
    config = REPOSITORY / "config"
    sources = {name: config / name for name in ("proxy.toml", "consumer.toml")}
    sources["alerts.yaml"] = config / "prometheus/alerts.yaml"
    sources |= {f"dashboards/{board.name}": board for board in (config / "grafana/dashboards").glob("*.json")}
    return {helm.CHART / "files" / name: source.read_text() for name, source in sorted(sources.items())}


def readme():
    command = [TOOLS / "helm-docs", "--chart-search-root", "charts", "--chart-to-generate", "charts/sidelog",
               "--dry-run", "--sort-values-order", "file", "--log-level", "warning"]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or not done.stdout:
        raise ValueError(f"helm-docs: {done.stderr[-2000:]}")
    return {helm.CHART / "README.md": done.stdout.rstrip("\n") + "\n"}


def samples():
    made = {}
    for sample in helm.SAMPLES:
        done = helm.template("--values", sample)
        if done.returncode:
            raise ValueError(f"{sample.name}: {done.stderr[-1000:]}")
        made[GOLDEN / "ci" / sample.name.replace("-values", "")] = dump(helm.documents(done.stdout))
    return made


def tidied(documents):
    """Without what is a copy of a file of the chart, and without its checksum."""
    files = {text.strip(): f"<files/{path.relative_to(helm.CHART / 'files')}>" for path, text in copies().items()}
    rules = yaml.safe_load(copies()[helm.CHART / "files/alerts.yaml"])
    for document in documents:
        if document["kind"] == "ConfigMap":
            for name, text in document.get("data", {}).items():
                document["data"][name] = files.get(text.strip(), text)
        if document.get("spec") == rules:
            document["spec"] = "<files/alerts.yaml>"
        if document["kind"] == "Deployment":
            annotations = document["spec"]["template"]["metadata"].get("annotations", {})
            annotations |= {"checksum/config": "<checksum>"} if "checksum/config" in annotations else {}
        yield document


class Dumper(yaml.SafeDumper):
    """Texts of several lines stay such, and nothing is an alias."""

    def ignore_aliases(self, data):
        return True


def text(dumper, value):
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, text)


def dump(documents):
    return yaml.dump_all(tidied(documents), Dumper=Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def applications():
    silent = Report("golden", silent=True)
    made = {}
    for form, objects in forms.all_forms(silent).items():
        for name, documents in objects.items():
            made[GOLDEN / "applications" / f"{name}.{form}.yaml"] = dump(documents)
    made.pop(GOLDEN / "applications/my-service.plain.yaml")  # It is the example itself.
    return made


# In this order, for each may be made from those before.
STAGES = (copies, readme, forms.made, samples, applications)


def write():
    written = set()
    for stage in STAGES:
        for path, content in stage().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            written.add(path)
    for path in GOLDEN.rglob("*.yaml"):
        if path not in written:
            path.unlink()


def check(report, stages=STAGES):
    made = {}
    for stage in stages:
        made |= stage()
    for path, content in made.items():
        same = path.exists() and path.read_text() == content
        report.expect(same, f"{path.relative_to(REPOSITORY)} is as made: run .ci/checks/chart.py --write")
    if stages is STAGES:
        report.expect(not [path for path in GOLDEN.rglob("*.yaml") if path not in made], "no golden file is of nothing")

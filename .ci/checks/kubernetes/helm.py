"""The chart, rendered by Helm."""

import subprocess

import yaml

from report import REPOSITORY, TOOLS

CHART = REPOSITORY / "charts/sidelog"
VERSIONS = ("1.33", "1.36", "1.37")
NEWEST = VERSIONS[-1]
SAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))


def installed():
    return (TOOLS / "helm").exists()


def helm(*arguments, values=None):
    """Runs Helm; `values` is a dictionary."""
    given = ["--values", "-"] if values is not None else []
    command = [TOOLS / "helm", *arguments, *given]
    text = yaml.safe_dump(values) if values is not None else None
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


def template(*arguments, chart=CHART, version=NEWEST, values=None):
    return helm("template", "sidelog", chart, "--kube-version", f"{version}.0", *arguments, values=values)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def pods(objects):
    """The pods that workloads make, each with its workload's name."""
    for workload in objects:
        made = workload.get("spec", {}).get("template") if isinstance(workload.get("spec"), dict) else None
        if made:
            metadata = {"name": workload["metadata"]["name"], "namespace": "shop", **made.get("metadata", {})}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made["spec"]}

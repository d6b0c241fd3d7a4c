"""Pods through the API server's own plugin, by the program .ci/tools/admission."""

import json
import os
import subprocess
import tempfile

import yaml

from kubernetes import helm
from report import TOOLS

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
# The injector, such that an error of its is one of the pod, too.
INJECTOR = {"injector": {"enabled": True, "failurePolicy": "Fail"}, "consumer": {"enabled": False}}


def policies(values=INJECTOR):
    return [NAMESPACE, *helm.documents(helm.template(values=values).stdout)]


def answers(objects, report):
    """What the program says of each pod among the objects, by the pod's name."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(objects, file)
        file.flush()
        # A fake client knows no watch that begins with a list: the informers would wait for its end for ever.
        environment = {**os.environ, "KUBE_FEATURE_WatchListClient": "false"}
        ran = subprocess.run([TOOLS / "admission", file.name], env=environment, capture_output=True, text=True,
                             timeout=180, check=False)  # fmt: skip
    if not report.expect(ran.returncode == 0, f"admission: {ran.stderr[-2000:]}"):
        return {}
    return {answer["pod"]["metadata"]["name"]: answer for answer in json.loads(ran.stdout)}

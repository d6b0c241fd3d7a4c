"""The ways in which an application of tests/ gets the sidecar: what each comes to, as Kubernetes would get it.

    template   tests/parent, a chart that has ours as a dependency and uses sidelog.proxy.container
    injector   tests/applications as they are: their pods, through the policy
    kustomize  tests/applications with the component
    plain      charts/examples/plain.yaml, which is rendered from tests/parent, as is the component's patch
"""

import contextlib
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from kubernetes import admission, helm
from report import REPOSITORY, TOOLS

APPLICATIONS = helm.CHART / "tests/applications"
NAMES = ("web", "api", "import", "store")
PLAIN = REPOSITORY / "charts/examples/plain.yaml"
COMPONENT = REPOSITORY / "charts/kustomize/component/sidecar.yaml"


@functools.cache
def parent(*arguments, version=helm.NEWEST):
    """What a chart with ours as a dependency renders: Helm's answer."""
    with tempfile.TemporaryDirectory() as folder:
        chart = shutil.copytree(helm.CHART, Path(folder) / "sidelog") / "tests/parent"
        updated = helm.helm("dependency", "update", "--skip-refresh", chart)
        if updated.returncode:
            return updated
        return helm.template(*arguments, chart=chart, version=version)


def text(template):
    """One template of the parent chart, as it is written."""
    done = parent("--show-only", f"templates/{template}.yaml")
    if done.returncode:
        raise ValueError(f"{template}: {done.stderr[-1000:]}")
    documents = done.stdout.split(f"---\n# Source: parent/templates/{template}.yaml\n")[1:]
    return "---\n".join(document.rstrip("\n") + "\n" for document in documents)


def made():
    return {PLAIN: text("plain"), COMPONENT: text("component")}


def kustomize(folder=APPLICATIONS):
    command = [TOOLS / "kustomize", "build", folder]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def shown():
    """The kustomization in the component's comment."""
    lines = (COMPONENT.parent / "kustomization.yaml").read_text().splitlines()
    return "\n".join(line.removeprefix("#     ") for line in lines if line.startswith("#     "))


def used(kustomization):
    """It, built over two workloads: one that has init containers of its own, and one that has none."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(REPOSITORY / "charts/kustomize", Path(folder) / "sidelog/charts/kustomize")
        files = {"overlay/kustomization.yaml": kustomization,
                 "base/kustomization.yaml": "resources: [two.yaml, none.yaml]"}  # fmt: skip
        for name, inits in ("two", ["one", "two"]), ("none", []):
            ports = [{"name": "http", "containerPort": 3000}]
            spec = {"containers": [{"name": "app", "image": "app:1", "ports": ports}]}
            if inits:
                spec["initContainers"] = [{"name": init, "image": "app:1"} for init in inits]
            metadata = {"name": name, "labels": {"sidelog.dev/inject": "true"}}
            workload = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}
            files[f"base/{name}.yaml"] = yaml.safe_dump({**workload, "spec": {"template": {"spec": spec}}})
        for path, content in files.items():
            file = Path(folder) / path
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
        return kustomize(Path(folder) / "overlay")


@contextlib.contextmanager
def copied(name, old, new):
    """A copy of the applications beside the component, with one text in place of another."""
    with tempfile.TemporaryDirectory() as folder:
        charts = shutil.copytree(REPOSITORY / "charts", Path(folder) / "charts")
        file = charts / "sidelog/tests/applications" / name
        before = file.read_text()
        assert old in before, old
        file.write_text(before.replace(old, new))
        yield file.parent


def template_form():
    return {name: helm.documents(text(name)) for name in NAMES}


def injector_form(report):
    """The applications, each with its pod as admission changed it in place of the workload."""
    objects = {name: helm.documents((APPLICATIONS / f"{name}.yaml").read_text()) for name in NAMES}
    pods = [pod for documents in objects.values() for pod in helm.pods(documents)]
    pods.sort(key=lambda pod: pod["metadata"]["name"])  # The one of `api` first: the program waits until it is changed.
    answers = admission.answers([*admission.policies(), *pods], report)
    for name, answer in answers.items():
        answer["pod"] = {"apiVersion": "v1", "kind": "Pod", **answer["pod"]}
        del answer["pod"]["status"]
        objects[name] = [answer["pod"] if "template" in one.get("spec", {}) else one for one in objects[name]]
    return objects


def kustomize_form():
    done = kustomize()
    if done.returncode:
        raise ValueError(f"kustomize: {done.stderr[-1000:]}")
    documents = helm.documents(done.stdout)
    return {name: [one for one in documents if one["metadata"]["labels"]["app"] == name] for name in NAMES}


def all_forms(report):
    """Form → application → its objects."""
    forms = {"template": template_form(), "injector": injector_form(report), "kustomize": kustomize_form()}
    return {**forms, "plain": {"my-service": helm.documents(PLAIN.read_text())}}

"""What Kubernetes and our programs say of all that is rendered from each sample of values, at each version."""

import subprocess

import kubernetes_validate
import yaml

from kubernetes import admission, helm
from report import BINARIES

FOREIGN = {"monitoring.coreos.com", "keda.sh"}


def check(report):
    report.expect(helm.SAMPLES, "there are samples of values")
    for sample in helm.SAMPLES:
        old = helm.template("--values", sample, version="1.32")
        told = ">=1.33.0-0" in old.stderr
        report.expect(old.returncode and told, f"{sample.name}: 1.32 is refused, and told why: {old.stderr[-500:]}")
        lint = helm.helm("lint", "--strict", helm.CHART, "--values", sample, "--kube-version", f"{helm.NEWEST}.0")
        report.expect(lint.returncode == 0, f"helm lint with {sample.name}: {lint.stdout[-2000:]}")
        for version in helm.VERSIONS:
            done = helm.template("--values", sample, version=version)
            if version == "1.33" and (yaml.safe_load(sample.read_text()).get("injector") or {}).get("enabled"):
                report.expect("1.36" in done.stderr, f"{sample.name}: the injector needs 1.36, and it is told")
                continue
            if report.expect(done.returncode == 0, f"{sample.name} at {version}: {done.stderr[-1000:]}"):
                judge(helm.documents(done.stdout), version, report, f"{sample.name} at {version}")
                restricted(helm.documents(done.stdout), report, f"{sample.name} at {version}")
    accepted("sidelog-proxy", ["--config", helm.CHART / "files/proxy.toml"], {}, report, "files/proxy.toml")
    accepted("sidelog-consumer", ["--config", helm.CHART / "files/consumer.toml"], {}, report, "files/consumer.toml")


def judge(documents, version, report, where):
    """Strict schemas, and the programs' word on their settings."""
    for document in documents:
        what = f"{where}: {document['kind']} {document['metadata']['name']}"
        if document["apiVersion"].partition("/")[0] not in FOREIGN:
            try:
                kubernetes_validate.validate(document, version, strict=True)
                report.expect(True, what)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                report.expect(False, f"{what}: {error}")
        if document["kind"] == "ConfigMap" and "consumer.toml" in document.get("data", {}):
            accepted("sidelog-consumer", [], {"SIDELOG_CONFIG_TOML": document["data"]["consumer.toml"]}, report, what)


def restricted(documents, report, where):
    """Pod Security's restricted profile takes each pod."""
    for name, answer in admission.answers(helm.pods(documents), report).items():
        report.expect(not answer["restricted"], f"{where}: {name} is restricted: {answer['restricted']}")


def accepted(binary, arguments, environment, report, what):
    command = [BINARIES / binary, "check", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    report.expect(done.returncode == 0, f"{what}: {binary} check: {done.stderr[-500:]}")

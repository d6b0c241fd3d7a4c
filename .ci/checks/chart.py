"""Checks the chart: chart.py [--quick | --write].

--quick   files/ are copies of config/, helm lints and renders for 1.33, 1.36 and 1.37, and refuses what contradicts itself
(none)    that, and the schemas of Kubernetes, our binaries' word on the settings, and the injector in the API server's plugin
--write   copies config/ to files/
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml
from report import BINARIES, REPOSITORY, TOOLS, Report

CHART = REPOSITORY / "charts/sidelog"
FOREIGN = {"monitoring.coreos.com", "keda.sh"}
SAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
# What is set, and a word of the sentence that refuses it.
REFUSED = {
    "consumer.autoscaling.enabled=true,consumer.keda.enabled=true": "enable one of them",
    "consumer.config=x,consumer.existingConfigMap=y": "into one of them",
    "consumer.terminationGracePeriodSeconds=10": "shutdown.deadline",
    "proxy.port=14081": "another number",
    "consumer.enabled=false,metrics.serviceMonitor.enabled=true": "metrics.podMonitor",
    "consumer.replicas=3": "replicas",
    "proxy.probes.type=tcp": "probes",
}
# Whether the injector takes the pod.
PODS = {
    "plain": True, "inits-before": True, "no-named-port": False, "two-owners": False, "no-label": False,
    "injected-before": False, "host-network": False, "port-clash": False, "probes": True, "lifecycle": True,
    "second-container": True, "annotations": True, "capture-off": True, "bad-annotations": True, "no-such-port": False,
}  # fmt: skip


def copies():
    """File of the chart → file of config/."""
    pairs = {name: f"config/{name}" for name in ("proxy.toml", "consumer.toml")}
    for board in sorted((REPOSITORY / "config/grafana/dashboards").glob("*.json")):
        pairs[f"dashboards/{board.name}"] = f"config/grafana/dashboards/{board.name}"
    for alerts in sorted((REPOSITORY / "config").glob("**/alerts.y*ml")):
        pairs["alerts.yaml"] = str(alerts.relative_to(REPOSITORY))
    return {CHART / "files" / ours: REPOSITORY / theirs for ours, theirs in pairs.items()}


def helm(*arguments):
    return subprocess.run([TOOLS / "helm", *arguments], capture_output=True, text=True, timeout=120, check=False)


def render(version, *arguments):
    return helm("template", "sidelog", CHART, "--kube-version", f"{version}.0", *arguments)


def quick(report):
    for ours, theirs in copies().items():
        same = ours.exists() and ours.read_bytes() == theirs.read_bytes()
        report.expect(same, f"{ours.name} is as in config/: run .ci/checks/chart.py --write")
    done = helm("lint", "--strict", CHART)
    report.expect(done.returncode == 0, f"helm lint: {done.stdout[-2000:]}")
    done = render("1.32")
    report.expect(done.returncode and ">=1.33.0-0" in done.stderr, "1.32 is refused, and the reason is told")
    for settings, word in REFUSED.items():
        done = render("1.37", "--set", settings)
        report.expect(done.returncode and word in done.stderr, f"{settings} is refused ({word}): {done.stderr[-500:]}")


def rendered(report):
    report.expect(SAMPLES, "there are samples of values")
    for sample in SAMPLES:
        for version in ("1.33", "1.36", "1.37"):
            done = render(version, "--values", sample)
            if version == "1.33" and "enabled: true" in sample.read_text().partition("injector:")[2][:30]:
                report.expect("1.36" in done.stderr, f"{sample.name}: the injector needs 1.36, and it is told")
                continue
            if not report.expect(done.returncode == 0, f"{sample.name} at {version}: {done.stderr[-1000:]}"):
                continue
            for document in filter(None, yaml.safe_load_all(done.stdout)):
                yield sample, version, document


def schemas(report):
    for sample, version, document in rendered(report):
        what = f"{sample.name} at {version}: {document['kind']} {document['metadata']['name']}"
        if document["apiVersion"].partition("/")[0] not in FOREIGN:
            try:
                kubernetes_validate.validate(document, version, strict=True)
                report.expect(True, what)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                report.expect(False, f"{what}: {error}")
        if document["kind"] == "ConfigMap" and "consumer.toml" in document.get("data", {}):
            accepted("sidelog-consumer", {"SIDELOG_CONFIG_TOML": document["data"]["consumer.toml"]}, report, what)


def accepted(binary, environment, report, what):
    done = subprocess.run([BINARIES / binary, "check"], env=environment, capture_output=True, text=True, check=False)
    report.expect(done.returncode == 0, f"{what}: {binary} check: {done.stderr[-500:]}")


def injector(report):
    done = render("1.37", "--set", "injector.enabled=true,injector.failurePolicy=Fail", "--show-only",
                  "templates/injector/policy.yaml", "--show-only", "templates/injector/binding.yaml")  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as policy:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        policy.write(done.stdout.lstrip("-\n") + "\n---\n" + yaml.safe_dump(namespace))
        policy.flush()
        command = [TOOLS / "admission", policy.name, CHART / "tests/pods.yaml"]
        # A fake client knows no watch that begins with a list: the informers would wait for its end for ever.
        environment = {**os.environ, "KUBE_FEATURE_WatchListClient": "false"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    if not report.expect(ran.returncode == 0, f"admission: {ran.stderr[-2000:]}"):
        return
    answers = {answer["pod"]["metadata"]["name"]: answer for answer in json.loads(ran.stdout)}
    report.expect(answers.keys() == PODS.keys(), "every pod has its expectation")
    for name, answer in answers.items():
        judge(name, answer, report)
    details({name: answer["pod"] for name, answer in answers.items()}, report)


def judge(name, answer, report):
    """What holds for every pod."""
    spec = answer["pod"]["spec"]
    last = (spec.get("initContainers") or [{"name": ""}])[-1]
    taken = last["name"] == "sidelog" and "env" in last
    report.expect(not answer.get("error"), f"{name} is admitted: {answer.get('error')}")
    report.expect(not answer.get("again"), f"{name}: a second pass changes nothing")
    report.expect(taken == PODS[name], f"{name}: injected is {taken}")
    if not taken:
        return
    port = "web" if name == "annotations" else "http"
    report.expect(answer["resolves"].get(port) == 14080, f"{name}: the Service finds the sidecar: {answer['resolves']}")
    report.expect(not [text for text in answer["restricted"] if "sidelog" in text], f"{name}: {answer['restricted']}")
    environment = {entry["name"]: entry["value"] for entry in last["env"]}
    report.expect(environment["UPSTREAM_URL"] == "http://127.0.0.1:8080", f"{name}: the upstream is the app's number")
    environment.pop("SIDELOG_CONFIG", None)
    accepted("sidelog-proxy", environment, report, name)


def details(pods, report):
    """What one pod alone shows."""
    def sidecar(name):
        return {entry["name"]: entry["value"] for entry in pods[name]["spec"]["initContainers"][-1]["env"]}

    app = pods["probes"]["spec"]["containers"][0]
    report.expect(app["livenessProbe"]["httpGet"]["port"] == 8080, "a probe by name becomes one by number")
    report.expect(app["readinessProbe"]["tcpSocket"]["port"] == 8080, "a TCP probe by name becomes one by number")
    stop = pods["lifecycle"]["spec"]["containers"][0]["lifecycle"]["preStop"]
    report.expect(stop["httpGet"]["port"] == 8080, "a hook by name becomes one by number")
    annotated = sidecar("annotations")
    report.expect(annotated["SERVICE_NAME"] == "shop-api", "the annotation names the service")
    report.expect(annotated["SIDELOG_CAPTURE__REQUEST_BODY"] == "false", "capture: headers leaves bodies out")
    report.expect(annotated["SIDELOG_CONFIG"] == "/etc/sidelog/config/proxy.toml", "the ConfigMap's file is read")
    sleep = pods["annotations"]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    report.expect(sleep == 5, "the app waits before its SIGTERM")
    report.expect(sidecar("capture-off")["SIDELOG_CAPTURE__ENABLED"] == "false", "capture: off records nothing")
    bad = sidecar("bad-annotations")
    report.expect(bad["SIDELOG_CAPTURE__REQUEST_BODY"] == "false", "an unknown capture leaves bodies out")
    report.expect("SIDELOG_CONFIG" not in bad, "a name that no ConfigMap can have is not mounted")
    report.expect(sidecar("plain")["SIDELOG_SPOOL__MAX_BYTES"] == "98304KiB", "the spool is 75 % of its volume")


def main():
    if "--write" in sys.argv[1:]:
        for ours, theirs in copies().items():
            shutil.copy(theirs, ours)
        return 0
    report = Report("chart")
    quick(report)
    if "--quick" not in sys.argv[1:]:
        schemas(report)
        injector(report)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())

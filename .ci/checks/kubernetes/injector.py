"""What the injector makes of tests/pods.yaml."""

from kubernetes import admission, helm, schemas

# Whether the injector takes the pod.
PODS = {
    "plain": True, "inits-before": True, "no-named-port": False, "two-owners": False, "no-label": False,
    "injected-before": False, "host-network": False, "port-clash": False, "probes": True, "lifecycle": True,
    "second-container": True, "annotations": True, "capture-off": True, "bad-annotations": True, "no-such-port": False,
    "not-restricted": True,
}  # fmt: skip


def check(report):
    pods = helm.documents((helm.CHART / "tests/pods.yaml").read_text())
    before = admission.answers(pods, report)
    after = admission.answers([*admission.policies(), *pods], report)
    report.expect(after.keys() == PODS.keys(), f"every pod has its expectation: {after.keys() ^ PODS.keys()}")
    for name, answer in after.items():
        judge(name, answer, before[name], report)
    if after:
        details({name: answer["pod"] for name, answer in after.items()}, report)
    report.expect(before.get("not-restricted", {}).get("restricted"), "one of the pods isn't restricted by itself")


def judge(name, answer, before, report):
    """What holds for every pod."""
    last = (answer["pod"]["spec"].get("initContainers") or [{"name": ""}])[-1]
    taken = last["name"] == "sidelog" and "env" in last
    report.expect(not answer.get("error"), f"{name} is admitted: {answer.get('error')}")
    report.expect(not answer.get("again"), f"{name}: a second pass changes nothing")
    report.expect(taken == PODS[name], f"{name}: injected is {taken}")
    same = answer["restricted"] == before["restricted"]
    report.expect(same, f"{name}: Pod Security has nothing against the sidecar: {answer['restricted']}")
    if not taken:
        return
    port = "web" if name == "annotations" else "http"
    report.expect(answer["resolves"].get(port) == 14080, f"{name}: the Service finds the sidecar: {answer['resolves']}")
    environment = {entry["name"]: entry["value"] for entry in last["env"]}
    report.expect(environment["UPSTREAM_URL"] == "http://127.0.0.1:8080", f"{name}: the upstream is the app's number")
    environment.pop("SIDELOG_CONFIG", None)
    schemas.accepted("sidelog-proxy", [], environment, report, name)


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

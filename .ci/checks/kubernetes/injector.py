"""What the injector makes of tests/pods.yaml, and of other values."""

import copy
import json

from kubernetes import admission, applications, forms, helm, schemas

# Whether the injector takes the pod.
PODS = {
    "plain": True, "inits-before": True, "no-named-port": False, "two-owners": False, "no-label": False,
    "injected-before": False, "host-network": False, "port-clash": False, "probes": True, "lifecycle": True,
    "second-container": True, "annotations": True, "capture-off": True, "bad-annotations": True, "no-such-port": False,
    "not-restricted": True, "container-of-its-name": False, "volume-of-its-name": False, "windows": False,
    "windows-nodes": False, "linux": True, "udp": False, "udp-beside": True, "empty-port": False,
    "number-as-port": False, "mesh-has-the-name": False, "mesh-has-the-number": False, "mesh": True,
    "empty-lists": True, "all-probes": True, "job-x7k2p": True, "pod-resources": True, "odd-annotations": True,
    "short-grace": True, "sleep-beside-a-hook": True, "largest": True, "too-many-containers": False,
    "too-many-ports": False,
}  # fmt: skip
# Values whose every part must come through the policy's expressions as it comes through the template.
OTHER = {
    "environment": 'parcel:prod "é" \\ #1',
    "ipv6": True,
    "nats": {"url": "nats://a:4222,nats://b:4222", "existingSecret": "nats", "tls": {"existingSecret": "nats-ca"}},
    "proxy": {
        "image": {"digest": f"sha256:{'a' * 64}"},
        "port": 15080, "adminPort": 15081,
        "config": "# \"parcel:\" \\ 'x' #1\n[redaction]\nheaders = [\"x-internal-token\"]\n",
        "resources": {"requests": {"cpu": 0.5}, "limits": {"cpu": 2, "memory": "1Gi"}},
        "spool": {"sizeLimit": "1Gi"},
        "probes": {"type": "exec"},
        "extraEnv": [{"name": "A", "value": "cel:b"},
                     {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra", "readOnly": True}],
    },
    "injector": {"enabled": True, "failurePolicy": "Fail", "labelKey": "example.com/log", "defaultPortName": "web"},
    "consumer": {"enabled": False},
}  # fmt: skip


def check(report):
    pods = helm.documents((helm.CHART / "tests/pods.yaml").read_text())
    pods += [crowd("largest", 20, 20), crowd("too-many-containers", 21, 1), crowd("too-many-ports", 1, 21)]
    before = admission.answers(pods, report)
    after = admission.answers([*admission.policies(), *pods], report)
    report.expect(after.keys() == PODS.keys(), f"every pod has its expectation: {after.keys() ^ PODS.keys()}")
    for name, answer in after.items():
        judge(name, answer, before[name], report)
    if after:
        details({name: answer["pod"] for name, answer in after.items()}, report)
    report.expect(before.get("not-restricted", {}).get("restricted"), "one of the pods isn't restricted by itself")
    other_values(report)


def pod(name, label, containers, **spec):
    metadata = {"name": name, "namespace": "shop", "labels": {label: "true"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def crowd(name, containers, ports):
    """A pod with so many containers and ports in each. The last port of the last container is http."""
    def one(number):
        declared = [{"name": f"p{port}", "containerPort": 10_000 + number * 100 + port} for port in range(ports)]
        return {"name": f"c{number}", "image": "app:1", "ports": declared}

    made = [one(number) for number in range(containers)]
    made[-1]["ports"][-1] = {"name": "http", "containerPort": 8080}
    return pod(name, "sidelog.dev/inject", made)


def judge(name, answer, before, report):
    """What holds for every pod."""
    last = (answer["pod"]["spec"].get("initContainers") or [{"name": ""}])[-1]
    taken = last["name"] == "sidelog" and "env" in last
    report.expect(not answer.get("error"), f"{name} is admitted: {answer.get('error')}")
    report.expect(not answer.get("again"), f"{name}: a second pass changes nothing")
    if not report.expect(taken == PODS[name], f"{name}: injected is {taken}"):
        return
    same = answer["restricted"] == before["restricted"]
    report.expect(same, f"{name}: Pod Security has nothing against the sidecar: {answer['restricted']}")
    if not taken:
        report.expect(answer["pod"] == before["pod"], f"{name} stays as it is")
        return
    accepted_by_the_server(name, answer["pod"], report)
    port = "web" if name == "annotations" else "http"
    report.expect(untouched(answer["pod"], port) == untouched(before["pod"], port), f"{name}: the rest stays as it is")
    report.expect(answer["resolves"].get(port) == 14080, f"{name}: the Service finds the sidecar: {answer['resolves']}")
    environment = {entry["name"]: entry["value"] for entry in last["env"]}
    report.expect(environment["UPSTREAM_URL"] == "http://127.0.0.1:8080", f"{name}: the upstream is the app's number")
    environment.pop("SIDELOG_CONFIG", None)
    schemas.accepted("sidelog-proxy", [], environment, report, name)


def accepted_by_the_server(name, admitted, report):
    """What its validation, which comes after admission, would refuse."""
    containers = applications.containers_of(admitted)
    for what, of in ("containers", containers), ("volumes", admitted["spec"]["volumes"]):
        names = [one["name"] for one in of]
        report.expect(len(set(names)) == len(names), f"{name}: {what} have names of their own: {names}")
    report.expect(not list(applications.dangling(admitted)), f"{name}: probes by name find it")
    document = {"apiVersion": "v1", "kind": "Pod", **admitted}
    document.pop("status", None)
    schemas.judge([document], helm.NEWEST, report, "injector")


def untouched(admitted, port):
    """The pod without the sidecar and its volumes, and without what the application gives up: the name of its port."""
    spec = copy.deepcopy(admitted["spec"])
    spec["initContainers"] = [one for one in spec.get("initContainers", []) if one["name"] != "sidelog"]
    spec["volumes"] = [one for one in spec.get("volumes", []) if not one["name"].startswith("sidelog-")]
    app = next(one for one in spec["containers"] if any(
        (declared["containerPort"], declared["protocol"]) == (8080, "TCP") for declared in one.get("ports", [])))
    for declared in app["ports"]:
        if (declared["containerPort"], declared["protocol"]) == (8080, "TCP"):
            declared.pop("name", None)
    hooks = app.get("lifecycle", {})
    if hooks.get("preStop", {}).get("sleep"):
        del app["lifecycle"]
    for action in [*(app.get(probe, {}) for probe in applications.PROBES), *hooks.values()]:
        for asked in action.values():
            if isinstance(asked, dict) and asked.get("port") == port:
                asked["port"] = 8080
    return admitted["metadata"], spec


def details(pods, report):
    """What one pod alone shows."""
    def sidecar(name):
        return {entry["name"]: entry["value"] for entry in pods[name]["spec"]["initContainers"][-1]["env"]}

    app = pods["probes"]["spec"]["containers"][0]
    report.expect(app["livenessProbe"]["httpGet"]["port"] == 8080, "a probe by name becomes one by number")
    report.expect(app["readinessProbe"]["tcpSocket"]["port"] == 8080, "a TCP probe by name becomes one by number")
    stop = pods["lifecycle"]["spec"]["containers"][0]["lifecycle"]["preStop"]
    report.expect(stop["httpGet"]["port"] == 8080, "a hook by name becomes one by number")
    app = pods["all-probes"]["spec"]["containers"][0]
    report.expect(app["startupProbe"]["tcpSocket"]["port"] == 8080, "a startup probe by name becomes one by number")
    report.expect(app["lifecycle"]["postStart"]["tcpSocket"]["port"] == 8080, "a TCP hook by name becomes a number")
    report.expect(app["readinessProbe"]["httpGet"]["port"] == "admin", "a probe of another port stays")
    report.expect(app["livenessProbe"]["grpc"]["port"] == 9090, "a gRPC probe stays")
    annotated = sidecar("annotations")
    report.expect(annotated["SERVICE_NAME"] == "shop-api", "the annotation names the service")
    report.expect(annotated["SIDELOG_CAPTURE__REQUEST_BODY"] == "false", "capture: headers leaves bodies out")
    report.expect(annotated["SIDELOG_CONFIG"] == "/etc/sidelog/config/proxy.toml", "the ConfigMap's file is read")
    sleep = pods["annotations"]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    report.expect(sleep == 5, "the app waits before its SIGTERM")
    for name in ("odd-annotations", "short-grace"):
        waits = "lifecycle" in pods[name]["spec"]["containers"][0]
        report.expect(not waits, f"{name}: the app doesn't wait longer than its grace period allows")
    hooks = pods["sleep-beside-a-hook"]["spec"]["containers"][0]["lifecycle"]
    report.expect(list(hooks) == ["postStart"], "an app with hooks of its own keeps them as they are")
    report.expect(sidecar("capture-off")["SIDELOG_CAPTURE__ENABLED"] == "false", "capture: off records nothing")
    bad = sidecar("bad-annotations")
    report.expect(bad["SIDELOG_CAPTURE__REQUEST_BODY"] == "false", "an unknown capture leaves bodies out")
    report.expect("SIDELOG_CONFIG" not in bad, "a name that no ConfigMap can have is not mounted")
    report.expect(sidecar("plain")["SIDELOG_SPOOL__MAX_BYTES"] == "98304KiB", "the spool is 75 % of its volume")
    named = {"plain": "shop", "odd-annotations": "app", "job-x7k2p": "app", "largest": "c19",
             "short-grace": "Käse \"&\" 'Brot' \\ {{ x }} #1"}  # fmt: skip
    for name, service in named.items():
        report.expect(sidecar(name)["SERVICE_NAME"] == service, f"{name} is {service}: {sidecar(name)['SERVICE_NAME']}")
    resources = pods["pod-resources"]["spec"]["initContainers"][-1]["resources"]
    storage = {"requests": {"ephemeral-storage": "128Mi"}, "limits": {"ephemeral-storage": "256Mi"}}
    report.expect(resources == storage, f"a pod's own resources take the sidecar in: {resources}")


def other_values(report):
    """The container of the policy is the template's, with values of every kind."""
    app = {"name": "app", "image": "app:1", "ports": [{"name": "web", "containerPort": 8080}]}
    given = pod("other-values", "example.com/log", [app], volumes=[{"name": "extra", "emptyDir": {}}])
    answer = admission.answers([*admission.policies(OTHER), given], report).get("other-values", {})
    rendered = forms.parent("--set-json", f"sidelog={json.dumps(OTHER)}", "--show-only", "templates/plain.yaml")
    if not report.expect(answer and not rendered.returncode, f"other values are good: {rendered.stderr[-500:]}"):
        return
    template = next(iter(helm.pods(helm.documents(rendered.stdout))))
    # Decoded and encoded by the same program: quantities are written alike.
    template = admission.answers([template], report)["my-service"]["pod"]["spec"]
    container, model = answer["pod"]["spec"]["initContainers"][-1], template["initContainers"][-1]
    report.expect(applications.common(container) == applications.common(model), f"other values: {container}, {model}")
    volumes = answer["pod"]["spec"]["volumes"][1:]
    report.expect(volumes == template["volumes"], f"other values: the volumes are the template's: {volumes}")
    report.expect(answer["resolves"].get("web") == 15080, f"other values: the Service finds it: {answer['resolves']}")
    environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    schemas.accepted("sidelog-proxy", [], environment, report, "other values")
    listens = [environment["SIDELOG_LISTENERS__0__ADDRESS"], environment["SIDELOG_ADMIN__ADDRESS"]]
    report.expect(listens == ["[::]:15080", "[::]:15081"], f"with ipv6 it listens at [::]: {listens}")

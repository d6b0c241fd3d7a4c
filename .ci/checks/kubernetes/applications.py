"""Four applications of other people's kind, in each form: what must come out. All have the same container."""

from kubernetes import admission, forms, helm, schemas

# (form, application, Service:port) → the container that its callers reach, and the number.
REACHED = {
    ("template", "web", "web:http"): ("sidelog", 8080),
    ("template", "api", "api:http"): ("sidelog", 14080),
    ("template", "api", "api:metrics"): ("api", 9090),
    ("template", "store", "store:http"): ("sidelog", 8080),
    ("injector", "web", "web:http"): ("nginx", 8080),  # A number bypasses it.
    ("injector", "web", "web-by-name:http"): ("sidelog", 14080),
    ("injector", "api", "api:http"): ("sidelog", 14080),
    ("injector", "api", "api:metrics"): ("api", 9090),
    ("injector", "store", "store:http"): ("sidelog", 14080),
    ("kustomize", "web", "web:http"): ("nginx", 8080),
    ("kustomize", "web", "web-by-name:http"): ("sidelog", 14080),
    ("kustomize", "api", "api:http"): ("sidelog", 14080),
    ("kustomize", "api", "api:metrics"): ("api", 9090),
    ("kustomize", "store", "store:http"): ("sidelog", 14080),
    ("plain", "my-service", "my-service:http"): ("sidelog", 14080),
}
# Who calls a pod of the headless Service by its address and the application's old number.
BY_ADDRESS = {"template": "sidelog", "injector": "store", "kustomize": "store"}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
# What differs between applications.
OWN = {"SERVICE_NAME", "UPSTREAM_URL", "PORT", "NATS_URL", "JAEGER_URL"}


def check(report):
    reached, containers = {}, []
    policies = admission.policies()
    waited_for = helm.documents((helm.CHART / "tests/pods.yaml").read_text())[0]
    for form, applications in forms.all_forms(report).items():
        objects = [one for documents in applications.values() for one in documents]
        schemas.judge(objects, helm.NEWEST, report, f"{form} form")
        pods = [one for one in objects if one["kind"] == "Pod"] + list(helm.pods(objects))
        services = [one for one in objects if one["kind"] == "Service"]
        for service in services:
            service["metadata"].setdefault("namespace", "shop")
        labelled = [labelled_again(pod) for pod in pods]
        answers = admission.answers([*policies, waited_for, *labelled, *services], report)
        answers.pop(waited_for["metadata"]["name"], None)
        report.expect(answers.keys() == applications.keys(), f"{form} form: each application has its pod")
        for name, answer in answers.items():
            judge(form, name, answer, labelled, report)
            owners = {number: container for container, number in numbers(answer["pod"])}
            for service, number in answer["services"].items():
                reached[form, name, service] = (owners.get(number), number)
            if sidecars(answer["pod"]):
                containers.append((f"{form} form of {name}", sidecars(answer["pod"])[0]))
            if name == "store":
                report.expect(owners[8080] == BY_ADDRESS[form], f"{form} form: 8080 of {name} is {owners[8080]}'s")
    for key in REACHED.keys() | reached.keys():
        good = reached.get(key) == REACHED.get(key)
        report.expect(good, f"{key} reaches {REACHED.get(key)}: {reached.get(key)}")
    one_source(containers, report)
    component(report)
    configured(report)
    refusals(report)


def labelled_again(pod):
    """The pod as the injector would take it, had it no sidecar; with a sidecar it must leave it as it is."""
    pod["metadata"].setdefault("namespace", "shop")
    pod["metadata"]["labels"]["sidelog.dev/inject"] = "true"
    return pod


def judge(form, name, answer, before, report):
    """What holds in every form."""
    what, pod = f"{form} form of {name}", answer["pod"]
    report.expect(not answer.get("error") and not answer.get("again"), f"{what}: the injector changes nothing twice")
    report.expect(not answer["restricted"], f"{what} is restricted: {answer['restricted']}")
    found = sidecars(pod)
    # No port is called http, so that the label alone leaves the Job as it is.
    expected = 0 if name == "import" and form != "template" else 1
    if not report.expect(len(found) == expected, f"{what} has {expected} sidecars: {len(found)}") or not found:
        return
    sidecar = found[0]
    given = next(one for one in before if one["metadata"]["name"] == name)
    report.expect(len(given["spec"]["initContainers"]) == 1, f"{what}: the injector adds no second one")
    report.expect(sidecar["restartPolicy"] == "Always", f"{what}: it is a native sidecar, for which no Job waits")
    environment = {entry["name"]: entry.get("value", "shop-api") for entry in sidecar["env"]}
    upstream = int(environment["UPSTREAM_URL"].removeprefix("http://127.0.0.1:"))
    others = [one for one in numbers(pod) if one[0] != "sidelog"]
    report.expect(upstream in [number for _, number in others], f"{what}: the application listens at {upstream}")
    port = sidecar["ports"][0]
    report.expect(str(port["containerPort"]) == environment["PORT"], f"{what}: it listens where it says")
    taken = [number for _, number in numbers(pod)]
    report.expect(len(set(taken)) == len(taken), f"{what}: each number is one container's: {taken}")
    named = [one["name"] for one in ports(pod) if one.get("name")]
    report.expect(len(set(named)) == len(named), f"{what}: each name is one container's: {named}")
    lost = list(dangling(pod))
    report.expect(not lost, f"{what}: probes by name have the name in their container: {lost}")
    mounted = {mount["name"] for mount in sidecar["volumeMounts"]}
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    report.expect(mounted <= volumes, f"{what}: its volumes are the pod's: {mounted - volumes}")
    schemas.accepted("sidelog-proxy", [], environment, report, what)


def containers_of(pod):
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def sidecars(pod):
    return [one for one in containers_of(pod) if one["name"] == "sidelog"]


def ports(pod):
    return [port for container in containers_of(pod) for port in container.get("ports", [])]


def numbers(pod):
    """(container, number) of each port."""
    return [(one["name"], port["containerPort"]) for one in containers_of(pod) for port in one.get("ports", [])]


def dangling(pod):
    """Probes and hooks that ask for a name that their container doesn't have."""
    for container in containers_of(pod):
        names = {port.get("name") for port in container.get("ports", [])}
        probes = {key: container[key] for key in PROBES if key in container}
        for key, hook in {**probes, **container.get("lifecycle", {})}.items():
            for action in hook.values():
                port = action.get("port") if isinstance(action, dict) else None
                if isinstance(port, str) and port not in names:
                    yield f"{container['name']}.{key}: {port}"


def one_source(containers, report):
    """But for what is the application's own, the container is the same everywhere."""
    report.expect(len(containers) > 9, f"there are containers of all forms: {len(containers)}")
    first, model = containers[0]
    for what, container in containers[1:]:
        report.expect(common(container) == common(model), f"the container of the {what} is that of the {first}")


def common(container):
    """The container without what is an application's own; the order of variables doesn't matter."""
    env = sorted((entry for entry in container["env"] if entry["name"] not in OWN), key=lambda entry: entry["name"])
    return {**container, "env": env, "ports": container["ports"][1:]}


def component(report):
    """The kustomize component, used as its comment says and without the patches."""
    for patched, kustomization in (True, forms.shown()), (False, forms.shown().partition("patches:")[0]):
        done = forms.used(kustomization)
        report.expect(done.returncode == 0, f"the component's comment is good: {done.stderr[-500:]}")
        inits = {one["metadata"]["name"]: one["spec"]["template"]["spec"]["initContainers"]
                 for one in helm.documents(done.stdout)}  # fmt: skip
        names = {name: [one["name"] for one in containers] for name, containers in inits.items()}
        last = names == {"two": ["one", "two", "sidelog"], "none": ["sidelog"]}
        report.expect(last, f"the component's sidecar is the last init container, patched {patched}: {names}")
        for name, containers in inits.items():
            environment = {entry["name"]: entry.get("value") for entry in containers[-1].get("env", [])}
            good = (environment.get("UPSTREAM_URL") == "http://127.0.0.1:3000") == patched
            report.expect(good, f"{name}: its variables are patched by name, patched {patched}: {environment}")


def configured(report):
    """A ConfigMap in the template form: mounted where SIDELOG_CONFIG says, in place of the values' settings."""
    values = "configured=true,sidelog.proxy.config=x"
    done = forms.parent("--set", values, "--show-only", "templates/configured.yaml")
    if not report.expect(done.returncode == 0, f"the template takes a ConfigMap: {done.stderr[-500:]}"):
        return
    pod = helm.documents(done.stdout)[0]
    schemas.judge([pod], helm.NEWEST, report, "template form with a ConfigMap")
    sidecar = sidecars(pod)[0]
    told = [entry for entry in sidecar["env"] if entry["name"].startswith("SIDELOG_CONFIG")]
    file = [{"name": "SIDELOG_CONFIG", "value": "/etc/sidelog/config/proxy.toml"}]
    report.expect(told == file, f"the ConfigMap's file is in place of the values' settings: {told}")
    mounts = {mount["name"]: mount["mountPath"] for mount in sidecar["volumeMounts"]}
    volumes = {volume["name"]: volume.get("configMap") for volume in pod["spec"]["volumes"]}
    report.expect(mounts.keys() == volumes.keys(), f"what is mounted is there: {mounts}, {volumes}")
    report.expect(mounts.get("sidelog-config") == "/etc/sidelog/config", f"the ConfigMap is mounted: {mounts}")
    report.expect(volumes.get("sidelog-config") == {"name": "shop-sidelog", "optional": True}, f"and named: {volumes}")


def refusals(report):
    """What an author of a chart or a kustomization may do wrong, and the sentence for it."""
    for template, word in {
        "no-upstream": "upstream must be the number",
        "named-upstream": "upstream must be the number",
        "typing-error": "there is no",
        "admin-number": "is the number of proxy.adminPort",
        "admin-upstream": "is the number of proxy.adminPort",
        "same-number": "the app must listen on another number",
    }.items():
        done = forms.parent("--set", f"refused={template}")
        report.expect(done.returncode and word in done.stderr, f"{template} is refused ({word}): {done.stderr[-500:]}")
    old = forms.parent(version="1.32")
    told = "Kubernetes 1.33" in old.stderr
    report.expect(old.returncode and told, f"the template is refused at 1.32: {old.stderr[-500:]}")
    labelled = 'labels: { app: import, sidelog.dev/inject: "true" }'
    with forms.copied("import.yaml", "labels: { app: import }", labelled) as folder:
        done = forms.kustomize(folder)
        refused = done.returncode and "test" in done.stderr
        report.expect(refused, f"the component refuses a port of another name: {done.stderr[-500:]}")

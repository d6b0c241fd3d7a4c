"""Every value: the schema knows it, the README tells it, it changes what is rendered, and what is none is refused."""

import json
import re

import yaml

from kubernetes import helm

INJECTOR = {"injector": {"enabled": True}}
# What must be on for a value to show; the longest beginning counts.
NEEDS = {
    "environment": INJECTOR, "otlp": INJECTOR, "proxy": INJECTOR, "injector": INJECTOR,
    "injector.enabled": {},
    "consumer.autoscaling": {"consumer": {"autoscaling": {"enabled": True}}},
    "consumer.autoscaling.enabled": {},
    "consumer.keda": {"consumer": {"keda": {"enabled": True}}},
    "consumer.keda.enabled": {},
    "dashboards.label": {"dashboards": {"enabled": True}},
}  # fmt: skip
# Values that are good where the first to come to mind isn't.
GOOD = {
    "imagePullSecrets": [{"name": "a"}], "proxy.port": 14090, "nats.url": "nats://other:4222",
    "proxy.resources": {"requests": {"cpu": "1"}}, "consumer.resources": {"requests": {"cpu": "1"}},
    "loki.url": "https://other/loki/api/v1/push", "proxy.image.digest": f"sha256:{'a' * 64}",
    "proxy.image.pullPolicy": "Always", "proxy.spool.sizeLimit": "1Gi", "proxy.probes.type": "exec",
    "proxy.drain.deadline": "2s", "injector.failurePolicy": "Fail", "consumer.image.digest": f"sha256:{'a' * 64}",
    "consumer.image.pullPolicy": "Always", "consumer.topologySpreadConstraints": [{"topologyKey": "zone"}],
    "consumer.tolerations": [{"operator": "Exists"}], "extraObjects": [{"kind": "Extra"}],
}  # fmt: skip
# Of the right type, and still none. Every value whose schema narrows its type down has one.
BAD = {
    "imagePullSecrets": ["name"], "proxy.image.digest": "sha256:1", "proxy.image.pullPolicy": "Sometimes",
    "proxy.port": 65536, "proxy.adminPort": 0, "proxy.spool.sizeLimit": "128M", "proxy.probes.type": "tcp",
    "proxy.drain.deadline": "1.5", "proxy.extraEnv": [{"value": "of none"}], "injector.failurePolicy": "ignore",
    "injector.labelKey": "two words", "injector.defaultPortName": "it's", "consumer.replicaCount": -1,
    "consumer.image.digest": "1", "consumer.image.pullPolicy": "", "consumer.autoscaling.minReplicas": 0,
    "consumer.autoscaling.maxReplicas": 0,
    "consumer.autoscaling.targetCPUUtilizationPercentage": 101, "consumer.keda.minReplicaCount": -1,
    "consumer.keda.maxReplicaCount": 0, "consumer.keda.lagThreshold": 0, "consumer.terminationGracePeriodSeconds": 0,
    "consumer.extraEnv": [{"name": "A", "text": "b"}], "proxy.resources": {"request": {"cpu": "1"}},
    "consumer.resources": {"limit": {"cpu": "1"}},
}  # fmt: skip
NARROW = {"pattern", "enum", "minimum", "maximum", "maxLength", "patternProperties"}
# Set together, and a word of the sentence that refuses it.
REFUSED = {
    "consumer.autoscaling.enabled=true,consumer.keda.enabled=true": "enable one of them",
    "consumer.config=x,consumer.existingConfigMap=y": "into one of them",
    "consumer.autoscaling.minReplicas=7": "minReplicas is above maxReplicas",
    "consumer.keda.minReplicaCount=7": "minReplicaCount is above maxReplicaCount",
    "consumer.terminationGracePeriodSeconds=29": "shutdown.deadline",
    "proxy.port=14081": "another number",
    "commonLabels.app\\.kubernetes\\.io/name=x": "use another name",
    "consumer.podLabels.helm\\.sh/chart=x": "use another name",
    "consumer.enabled=false,metrics.serviceMonitor.enabled=true": "metrics.podMonitor",
    "consumer.serviceAccount.create=false,consumer.serviceAccount.annotations.a=b": "serviceAccount.create: true",
}


def check(report):
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    known = dict(leaves(schema))
    known.pop("global")  # Helm's own.
    known.pop("enabled")  # Read by the condition of a dependency alone.
    ours = dict(defaults(values, known))
    report.expect(known.keys() == ours.keys(), f"values.yaml has what the schema has: {known.keys() ^ ours.keys()}")
    table = (helm.CHART / "README.md").read_text()
    told = set(re.findall(r"^\| (\S+) \| (?:bool|int|list|object|string) \| .+? \| \S.* \|$", table, re.MULTILINE))
    report.expect(told == ours.keys(), f"each has a sentence in the README: {told ^ ours.keys()}")
    for path, default in ours.items():
        changes(path, default, report)
        wrong = {} if not isinstance(default, dict) else "text"
        refused(nested(path, wrong), path.replace(".", "/"), report, f"{path}: {wrong!r}")
    narrow = {path for path, inner in known.items() if NARROW & (inner.keys() | inner.get("items", {}).keys())}
    report.expect(narrow <= BAD.keys(), f"each narrowed value has one that is refused: {narrow - BAD.keys()}")
    for path, wrong in BAD.items():
        refused(nested(path, wrong), path.replace(".", "/"), report, f"{path}: {wrong!r}")
    for path in objects(schema):
        refused(nested(f"{path}.typo".lstrip("."), 1), "'typo' not allowed", report, f"{path}: a typing error")
    contradictions(report)


def leaves(schema, path=""):
    """(path, schema) of what has no keys that the schema knows."""
    for name, inner in schema["properties"].items():
        if "properties" in inner:
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner


def objects(schema, path=""):
    yield path
    for name, inner in schema["properties"].items():
        if "properties" in inner:
            yield from objects(inner, f"{path}.{name}".lstrip("."))


def defaults(values, known, path=""):
    for name, value in values.items():
        if isinstance(value, dict) and value and f"{path}{name}" not in known:
            yield from defaults(value, known, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def nested(path, value):
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def merged(one, other):
    both = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], dict) and isinstance(other[name], dict):
            both[name] = merged(one[name], other[name])
    return both


def another(path, default):
    if path in GOOD:
        return GOOD[path]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, str):
        return "changed"
    return {"changed": "yes"} if isinstance(default, dict) else [{"name": "changed"}]


BASES = {}


def changes(path, default, report):
    needs = max((start for start in NEEDS if f"{path}.".startswith(f"{start}.")), key=len, default=None)
    context = NEEDS.get(needs, {})
    value = another(path, default)
    before = BASES.setdefault(needs, helm.template(values=context)).stdout
    after = helm.template(values=merged(context, nested(path, value)))
    if report.expect(after.returncode == 0, f"{path}: {value!r} is a good value: {after.stderr[-500:]}"):
        shown = isinstance(value, (bool, dict, list)) or str(value) in after.stdout
        report.expect(after.stdout != before and shown, f"{path}: {value!r} changes what is rendered")


def refused(values, word, report, what):
    done = helm.template(values=values)
    report.expect(done.returncode and word in done.stderr, f"{what} is refused ({word}): {done.stderr[-500:]}")


def contradictions(report):
    """Each sentence of the templates is said by one of them."""
    told = ""
    for settings, word in REFUSED.items():
        done = helm.template("--set", settings)
        told += done.stderr
        report.expect(done.returncode and word in done.stderr, f"{settings} is refused ({word}): {done.stderr[-500:]}")
    old = helm.template(version="1.35", values=INJECTOR)
    report.expect(old.returncode, "the injector is refused before 1.36")
    told += old.stderr
    old = helm.template(version="1.32")
    report.expect(old.returncode and ">=1.33.0-0" in old.stderr, "1.32 is refused, and the reason is told")
    sentences = re.findall(r'fail "([^"]+)"', (helm.CHART / "templates/_validations.tpl").read_text())
    for sentence in sentences or [""]:
        report.expect(sentence and sentence in told, f"a case is refused with {sentence!r}")

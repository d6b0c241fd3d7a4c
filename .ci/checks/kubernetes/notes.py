"""What the chart tells whoever installed it: what to do next in each form, and what bypasses the sidecar in all."""

from kubernetes import helm

# Values → what the notes tell, and what they don't.
CASES = [
    ({}, ["rollout status deployment/sidelog-consumer", "injector.enabled=true", "sidelog.proxy.container",
          "charts/kustomize/component", "charts/examples/plain.yaml"], ["kubectl patch", "Secret"]),
    ({"injector": {"enabled": True}},
     ['{"sidelog.dev/inject":"true"}', "(http, or", "--selector sidelog.dev/inject=true", "14080 or 14081", "Windows",
      "Ignore"],
     ["plain.yaml"]),
    ({"injector": {"enabled": True, "failurePolicy": "Fail", "labelKey": "a/b", "defaultPortName": "web"}},
     ['{"a/b":"true"}', "(web, or", "--selector a/b=true"], ["Ignore", "sidelog.dev/inject"]),
    ({"consumer": {"enabled": False}}, ["sidelog.proxy.container"], ["rollout status"]),
    ({"nats": {"existingSecret": "one", "tls": {"existingSecret": "two"}}}, ["Secret one and the Secret two", "Until it is there they serve"], []),
]  # fmt: skip
BYPASSES = ["targetPort is a number", "has kept", "headless Service", "hostNetwork", "hostPort", "port-forward"]


def check(report):
    for values, told, untold in CASES:
        notes = of(values, report)
        for word in [*told, *BYPASSES]:
            report.expect(word in notes, f"the notes of {values} tell {word!r}: {notes}")
        for word in [*untold, "no value", "%!"]:
            report.expect(word not in notes, f"the notes of {values} don't tell {word!r}: {notes}")


def of(values, report):
    done = helm.helm("install", "sidelog", helm.CHART, "--dry-run=client", values=values)
    report.expect(done.returncode == 0, f"the notes of {values}: {done.stderr[-500:]}")
    return done.stdout.partition("\nNOTES:\n")[2]

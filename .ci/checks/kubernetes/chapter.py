"""The README's chapter on Kubernetes: what of it can be run is run, what it shows is the chart's."""

import os
import re
import shlex
import subprocess

from kubernetes import helm, schemas
from report import REPOSITORY, TOOLS

# Programs of which every command is run, those that would ask a cluster in a dry run.
RUN = {"helm": ["--dry-run=client"], "kustomize": []}


def check(report):
    readme = (REPOSITORY / "README.md").read_text()
    chapter = readme.partition("\n## Kubernetes\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", chapter, re.DOTALL | re.MULTILINE)
    ran = [command(line, report) for language, body in blocks if language == "sh" for line in commands(body)]
    report.expect(len([one for one in ran if one]) >= 5, "there are commands in the chapter that can be run")
    for language, body in blocks:
        if language == "yaml":
            schemas.judge(helm.documents(body), helm.NEWEST, report, "README")
        if language == "gotemplate":
            plain = (helm.CHART / "tests/parent/templates/plain.yaml").read_text()
            used = re.findall(r"{{.*include.*}}", body)
            report.expect(used and all(one in plain for one in used), "README: plain.yaml uses the template as it says")
    for path in set(re.findall(r"\bcharts/[\w./-]+\b", chapter)):
        report.expect((REPOSITORY / path).exists(), f"README: {path} is there")
    policy = (helm.CHART / "templates/injector/policy.yaml").read_text()
    told = set(re.findall(r"^\| `(sidelog\.dev/[\w-]+)` \|", chapter, re.MULTILINE))
    known = set(re.findall(r"'(sidelog\.dev/[\w-]+)'", policy))
    report.expect(told == known, f"README: the annotations are the injector's: {told ^ known}")


def commands(body):
    return body.replace("\\\n", " ").splitlines()


def command(line, report):
    """Runs it if it is one of those; whether it was."""
    if line.partition(" ")[0] not in RUN:
        return False
    words = shlex.split(line)
    dry = RUN[words[0]] if words[1] == "install" else []
    # No configuration of a cluster: what would ask one fails.
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run([TOOLS / words[0], *words[1:], *dry], cwd=REPOSITORY, env=environment, capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    report.expect(done.returncode == 0 and done.stdout, f"README: {line}: {done.stderr[-500:]}")
    return True

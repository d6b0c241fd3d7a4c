"""What linters, and the programs that read them, say of the files of the stack."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from report import TOOLS, run

YAML = ["compose.yml", "config/loki/loki.yaml", "config/jaeger/jaeger.yaml", "config/grafana/provisioning"]
YAMLLINT = """
extends: default
rules:
  braces: { max-spaces-inside: 1 }
  comments: { min-spaces-from-content: 1 }
  document-start: disable
  line-length: { max: 120 }
"""


def check(root, report, quick):
    """Everything that needs no model: `quick` is what wheels bring, else what is built from Go modules."""
    if quick:
        run([TOOLS / "yamllint", "--strict", "--config-data", YAMLLINT, *YAML], report, "yamllint", cwd=root)
        run([TOOLS / "hadolint", "Dockerfile"], report, "hadolint", cwd=root)
        run([TOOLS / "shellcheck", "config/load/visit.sh"], report, "shellcheck", cwd=root)
        nats = [TOOLS / "nats-server", "-t", "-c", "config/nats/nats.conf"]
        passwords = {f"NATS_{user}_PASSWORD": user for user in ("PROXY", "CONSUMER", "OPERATOR")}
        run(nats, report, "nats-server -t", cwd=root, env={**os.environ, **passwords})
        units(root, report)
        return
    loki = [TOOLS / "loki", "-verify-config", "-config.file=config/loki/loki.yaml"]
    run(loki, report, "loki -verify-config", cwd=root)
    jaeger = [TOOLS / "jaeger-v2", "validate", "--config", "config/jaeger/jaeger.yaml"]
    run(jaeger, report, "jaeger validate", cwd=root)
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        run([docker, "compose", "--profile", "load", "config", "--quiet"], report, "docker compose config", cwd=root)
    elif not report.silent:
        # The tool `compose` reads the file with the same library, in `compose.model`.
        report.skip("docker compose config: there is no docker with the compose plugin")


def units(root, report):
    """The systemd units, by systemd itself where it is there."""
    if not shutil.which("systemd-analyze"):
        report.skip("systemd-analyze verify: it is not installed")
        return
    for unit in sorted((root / "config/systemd").glob("*.service")):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / unit.name
            # The program isn't installed on the machine that checks.
            copy.write_text(re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", unit.read_text(), flags=re.MULTILINE))
            run(["systemd-analyze", "verify", copy], report, f"systemd-analyze verify {unit.name}")

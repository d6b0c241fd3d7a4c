"""What linters, and the programs that read them, say of the files of the stack."""

import shutil
import subprocess

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
        run([TOOLS / "nats-server", "-t", "-c", "config/nats/nats.conf"], report, "nats-server -t", cwd=root)
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

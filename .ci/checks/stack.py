"""Checks what compose.yml brings up, without Docker: stack.py [--quick].

--quick   only what needs nothing that is built: yamllint, hadolint, shellcheck, nats-server -t
(none)    all of it. Needs the debug binaries (`cargo build --bins`) and `.ci/install stack`

Each part is a module: `files` (what linters and the programs themselves say of a file), `compose` (the model of
compose.yml against the Dockerfile and our binaries), `grafana` (dashboards and data sources), `prometheus` (alerts), `live` (the whole stack
as processes on this machine, with the files and the environment of compose.yml, and every query of Grafana asked of
the real Loki). `breakage` then breaks a copy of the files in every way that was thought of: each must be found.
"""

import sys

sys.dont_write_bytecode = True  # before the modules beside this file are read

import breakage
import compose
import files
import grafana
import live
import prometheus
from report import REPOSITORY, Report


def main():
    report = Report("stack")
    files.check(REPOSITORY, report, quick=True)
    if "--quick" not in sys.argv[1:]:
        files.check(REPOSITORY, report, quick=False)
        compose.check(REPOSITORY, report)
        grafana.check(REPOSITORY, report)
        prometheus.check(REPOSITORY, report)
        prometheus.check_live(REPOSITORY, report)
        if report.failures:
            report.say("not started: the stack, before what is above is corrected")
        else:
            with live.Stack(REPOSITORY, report) as stack:
                stack.check()
                grafana.check_queries(REPOSITORY, stack.loki, report)
                grafana.check_readme(REPOSITORY, stack.loki, report)
                breakage.check(stack.loki, report)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())

"""Checks the chart, without a cluster: chart.py [--quick | --write].

--quick   only what needs nothing that is built: yamllint, files/ are copies of config/; helm lint, where Helm is
(none)    all of it. Needs the debug binaries (`cargo build --bins`) and `.ci/install chart`
--write   makes again what is made from other files, golden files among it: read the difference

Each part is a module of `kubernetes`: `generated` (files that are made from others), `values` (each one's schema and
effect, and what is refused), `schemas` (of Kubernetes, for all that is rendered), `notes` (what is told after an
install), `injector` (in the API server's own plugin), `applications` (four of them, in each form of `forms`),
`chapter` (the README's).
"""

import sys

sys.dont_write_bytecode = True  # before the modules beside this file are read

import files
from kubernetes import generated, helm
from report import REPOSITORY, TOOLS, Report, run

YAML = ["charts/examples", "charts/kustomize", "charts/sidelog/ci", "charts/sidelog/values.yaml",
        "charts/sidelog/tests/applications"]  # fmt: skip


def main():
    if "--write" in sys.argv[1:]:
        generated.write()
        return 0
    report = Report("chart")
    command = [TOOLS / "yamllint", "--strict", "--config-data", files.YAMLLINT, *YAML]
    run(command, report, "yamllint", cwd=REPOSITORY)
    if helm.installed():
        done = helm.helm("lint", "--strict", helm.CHART)
        report.expect(done.returncode == 0, f"helm lint: {done.stdout[-2000:]}")
    else:
        report.skip("helm lint: run .ci/install chart")
    if "--quick" in sys.argv[1:]:
        generated.check(report, [generated.copies])
    else:
        whole(report)
    return report.close()


def whole(report):
    # Theirs is a wheel that --quick does without.
    from kubernetes import applications, chapter, injector, notes, schemas, values

    generated.check(report)
    values.check(report)
    schemas.check(report)
    notes.check(report)
    injector.check(report)
    applications.check(report)
    chapter.check(report)


if __name__ == "__main__":
    sys.exit(main())

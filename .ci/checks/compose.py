"""compose.yml, as compose itself reads it, against the Dockerfile, the other files and our binaries."""

import json
import os
import re
import subprocess
import tomllib

from report import BINARIES, TOOLS, run

# What users are told to open, and what the services on the host may send to.
PUBLISHED = {8080, 3000, 16686, 8222, 3100, 4317, 4318, 4222, 9090}
# What pins an image: its tag may move.
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
# Runs once, as root, to give a volume away; it has no network and one capability.
ROOT_ONCE = "nats-volume"


def model(root, report):
    """compose.yml read by compose-go, which is how `docker compose` reads it: schema, merges, profiles, references."""
    done = run([TOOLS / "compose", "compose.yml"], report, "compose-go reads compose.yml", cwd=root)
    return json.loads(done.stdout) if done.returncode == 0 else None


def images(root):
    """The Dockerfile's targets: name → its instructions, those of the stages it builds on first."""
    stages, order = {}, []
    text = (root / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if start := re.match(r"FROM (?:--\S+ )?(\S+)(?: AS (\S+))?", line):
            order.append(start[2] or start[1])
            stages[order[-1]] = list(stages.get(start[1], []))
        elif order and line and not line.startswith("#"):
            stages[order[-1]].append(line.strip())
    return stages, order[-1]


def last(instructions, name):
    found = [line[len(name) + 1 :] for line in instructions if line.startswith(name + " ")]
    return found[-1] if found else None


def check(root, report):
    project = model(root, report)
    if project is None:
        return
    stages, default = images(root)
    for base in re.findall(r"^(?:FROM|# syntax=) ?(\S+)", (root / "Dockerfile").read_text(), re.MULTILINE):
        report.expect(base in stages or DIGEST.search(base), f"Dockerfile: {base} has a digest")
    report.expect(default == "proxy", "the Dockerfile's last target is `proxy`")
    services = project["services"]
    for name, service in services.items():
        check_container(root, name, service, services, report)
        if "build" in service:
            check_build(root, name, service, stages, report)
    published = {int(port["published"]) for service in services.values() for port in service.get("ports", [])}
    report.expect(published == PUBLISHED, f"the published ports are {sorted(PUBLISHED)}, not {sorted(published)}")
    proxy = services["proxy"]["environment"]
    report.expect(proxy.get("SERVICE_NAME") == "api-service", 'the example is found by {service="api-service"}')
    check_context(root, report)


def check_container(root, name, service, services, report):
    """What holds for every container: a version, a health check, limits, a user, no privileges."""

    def expect(good, what):
        report.expect(good, f"compose.yml: {name}: {what}")

    tag = service["image"].partition("@")[0].rpartition(":")[2]
    expect(re.search(r"\d+\.\d+", tag) and "latest" not in tag, f"{service['image']} has a version")
    expect("build" in service or DIGEST.search(service["image"]), f"{service['image']} has a digest")
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    expect({"cpus", "memory"} <= limits.keys(), "cpus and memory are limited")
    expect(service.get("cap_drop") == ["ALL"], "all capabilities are dropped")
    expect("no-new-privileges:true" in service.get("security_opt", []), "no new privileges")
    if name == ROOT_ONCE:
        expect(service.get("network_mode") == "none" and service.get("restart") == "no", "runs once, without a network")
        return
    health = service.get("healthcheck", {})
    serves = "ports" in service or "expose" in service
    expect("test" in health if serves else health.get("disable"), "has a health check, or says that it needs none")
    expect(service.get("restart") == "unless-stopped", "comes back after a crash")
    if "build" not in service:
        expect(re.fullmatch(r"[1-9]\d*:\d+", service.get("user", "")), "runs as a user that is not root, by number")
    for other, how in service.get("depends_on", {}).items():
        known = services[other].get("healthcheck", {}).get("test")
        good = how["condition"] == "service_healthy" and known
        once = how["condition"] == "service_completed_successfully" and services[other].get("restart") == "no"
        expect(good or once, f"waits for the health or the end of {other}")
    for volume in service.get("volumes", []):
        if volume["type"] == "bind":
            expect(os.path.exists(volume["source"]), f"{os.path.relpath(volume['source'], root)} is there")
            expect(volume.get("read_only"), f"{volume['target']} is mounted read-only")


def check_build(root, name, service, stages, report):
    """An image of ours: its target, what it starts and as whom, its version, and the binary's word on the variables."""
    target = service["build"]["target"]
    stage = stages.get(target, [])
    report.expect(stage, f"compose.yml: {name}: the Dockerfile has a target {target}")
    user = last(stage, "USER")
    report.expect(user and re.match(r"[1-9]", user), f"Dockerfile: {target}: USER is a number that is not root's")
    entry = json.loads(last(stage, "ENTRYPOINT") or "[]")
    binary = BINARIES / os.path.basename(entry[0]) if entry else None
    if not report.expect(binary and binary.exists(), f"Dockerfile: {target} starts a binary that is built ({binary})"):
        return
    copied = any(line.startswith("COPY") and line.endswith(entry[0]) for line in stage)
    report.expect(copied, f"Dockerfile: {target}: {entry[0]} is copied from the build")
    report.expect(not service.get("command"), f"compose.yml: {name}: is set by variables, not by arguments")
    version = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    tagged = service["image"].rpartition(":")[2]
    report.expect(tagged == version, f"compose.yml: {name}: the image's version is the workspace's, {version}")
    exposed = set((last(stage, "EXPOSE") or "").split())
    wanted = {str(port["target"]) for port in service.get("ports", [])} | set(service.get("expose", []))
    report.expect(wanted == exposed, f"compose.yml: {name}: its ports are what the image exposes, {sorted(exposed)}")
    check_environment(root, name, service, binary, report)


def check_environment(root, name, service, binary, report):
    """Every variable is documented by the binary, and with all of them its `check` finds nothing wrong."""
    given = {key: str(value) for key, value in service["environment"].items()}
    if binary.name == "example-upstream":
        documented = (root / "example-upstream/src/main.rs").read_text()
    else:
        documented = "".join(said(binary, *words) for words in (["--help"], ["defaults"]))
        # The named file is what is mounted there.
        for volume in service.get("volumes", []):
            given = {key: value.replace(volume["target"], volume["source"]) for key, value in given.items()}
        arguments = {"env": given, "cwd": root}
        run([binary, "check"], report, f"{binary.name} check, with the environment of {name}", **arguments)
    for key in given:
        known = re.search(rf"\b{key}\b", documented) or re.fullmatch(r"SIDELOG_[A-Z0-9_]+__[A-Z0-9_]+", key)
        report.expect(known, f"compose.yml: {name}: {binary.name} knows the variable {key}")


def said(binary, *words):
    done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=30, check=True, env={})
    return done.stdout


def check_context(root, report):
    """What .dockerignore lets through is all that cargo needs: each member, and each file that a source includes."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    report.expect(rules[0] == "*", ".dockerignore: nothing is sent unless it is named")
    patterns = [re.escape(rule[1:]).replace(r"\*", "[^/]*") for rule in rules if rule.startswith("!")]
    members = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["members"]
    needed = [".cargo/config.toml", "Cargo.toml", "Cargo.lock", *members]
    for source in root.glob("*/src/**/*.rs"):
        for included in re.findall(r'include_str!\("([^"]+)"\)', source.read_text()):
            needed.append(os.path.relpath(source.parent / included, root))
    for path in needed:
        sent = any(re.fullmatch(f"{pattern}(/.*)?", path) for pattern in patterns)
        report.expect(sent, f".dockerignore lets {path} through")

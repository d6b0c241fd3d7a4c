"""Checks that README.md is true where a program can tell; `--write` renews what it quotes.

    toml    good settings, by `sidelog-proxy check`; below `<!-- file: F -->` it is F to the letter
    yaml    a compose file, by its keys; the objects of Kubernetes are checked by chart.py
    sh      bash reads it, and every `make` target and file it names is there
    tables  each test that holds an invariant is a test of this tree; each link leads somewhere, the names of secrets are the code's

Exit status: 0 all holds, 1 something does not; each on a line of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
FILE_BLOCK = re.compile(r"(<!-- file: (\S+) -->\n```\w+\n)(.*?)(```\n)", re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def quoted(text):
    """The README with every quoted file as it is now."""
    return FILE_BLOCK.sub(lambda m: m[1] + (ROOT / m[2]).read_text() + m[4], text)


def proxy():
    """The built proxy: of the newest profile there is."""
    built = [path for path in (ROOT / "target").glob("*/sidelog-proxy") if os.access(path, os.X_OK)]
    return max(built, key=lambda path: path.stat().st_mtime) if built else None


def toml(body):
    if "address = \"0.0.0.0:9902\"" in body:
        return None  # The consumer's, quoted: a test of its crate holds that it is good.
    program = proxy()
    if program is None:
        return "no sidelog-proxy is built: run `cargo build` first"
    run = subprocess.run([program, "check"], env={"SIDELOG_CONFIG_TOML": body}, capture_output=True, text=True, check=False)
    told = run.stderr.strip()
    # The settings are read, and only a file that they name isn't on this machine.
    missing = len(told.splitlines()) == 1 and "failed to read /etc/sidelog/" in told
    return told if run.returncode and not missing else None


def compose(body):
    document = yaml.safe_load(body)
    if "apiVersion" in document:
        return None
    services = document["services"]
    bad = [name for name, service in services.items() if "image" not in service]
    return f"services without an image: {bad}" if bad else None


def shell(body):
    run = subprocess.run(["bash", "-n"], input=body, capture_output=True, text=True, check=False)
    if run.returncode:
        return run.stderr.strip()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    unknown = [target for target in re.findall(r"^make (\w+)", body, re.MULTILINE) if target not in targets]
    return f"no such target in the Makefile: {unknown}" if unknown else None


CHECKS = {"toml": toml, "yaml": compose, "sh": shell}


def missing_tests(text):
    section = text.split("## How it is built")[1].split("## Limits")[0]
    names = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", section))
    sources = "\n".join(path.read_text() for path in ROOT.glob("*/[st][re]*/**/*.rs"))
    return [f"no test is called {name}" for name in sorted(names) if f"fn {name}(" not in sources] or (
        [] if names else ["no test is named under How it is built"]
    )


def names_of_secrets(text):
    """The README lists the names that the code knows, no more and no fewer."""
    source = (ROOT / "proxy/src/shipping/redact/names.rs").read_text()
    known = re.findall(r'"(\w+)"', re.search(r"SECRET: \[&str; \d+\] = \[(.*?)\];", source, re.DOTALL)[1])
    told = re.search(r"<!-- names -->\n```text\n(.*?)```", text, re.DOTALL)[1].split()
    return [] if told == known else [f"the names of secrets differ: {sorted(set(told) ^ set(known))}"]


def broken_links(text):
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    return [f"a link leads nowhere: {link}" for link in links if not (ROOT / link).exists()]


def main():
    text = README.read_text()
    if "--write" in sys.argv:
        README.write_text(quoted(text))
        return 0
    problems = [] if quoted(text) == text else ["a quoted file has changed: run .ci/checks/readme.py --write"]
    blocks = BLOCK.findall(text)
    for language, body in blocks:
        problem = CHECKS.get(language, lambda _: None)(body)
        if problem:
            problems.append(f"```{language} {body.splitlines()[0]} …: {problem}")
    problems += missing_tests(text) + names_of_secrets(text) + broken_links(text)
    for problem in problems:
        print(f"README.md: {problem}")
    print(f"readme: {len(blocks)} blocks, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""What was checked and what is wrong, told as it is found; and where things are."""

import os
import pathlib
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / ".ci" / "bin"
BINARIES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "debug"


class Report:
    """Counts what passed and what failed. `silent` keeps it to itself, for the copies that must fail."""

    def __init__(self, name, silent=False):
        self.name = name
        self.passed = 0
        self.failures = []
        self.skipped = []
        self.silent = silent

    def say(self, text):
        if not self.silent:
            print(f"{self.name}: {text}", flush=True)

    def expect(self, good, what):
        """Notes that `what` holds, or that it doesn't."""
        if good:
            self.passed += 1
        else:
            self.failures.append(what)
            self.say(f"FAILED: {what}")
        return good

    def skip(self, what):
        self.skipped.append(what)
        self.say(f"SKIPPED: {what}")

    def close(self):
        """The last line, and the exit status."""
        if not self.passed:
            self.expect(False, "nothing was checked")
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        self.say(f"{self.passed} passed, {len(self.failures)} failed{skipped}")
        return 1 if self.failures else 0


def run(command, report, what, **options):
    """Runs `command` and notes in the report whether it exits with 0. Gives back the finished process."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    output = (done.stdout + done.stderr).strip()
    report.expect(done.returncode == 0, what if done.returncode == 0 else f"{what}:\n{output[-3000:]}")
    return done

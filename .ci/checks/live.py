"""The stack of compose.yml as processes on this machine: the same files, the same environment, other ports and folders.

What is left out is Docker and Grafana. Ports are free ones, so it disturbs nothing and needs nothing to be free; every
process ends with the `with` block, and what they wrote with it.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone

import compose
from report import BINARIES, REPOSITORY, TOOLS, Report

# Seconds. Loki alone needs 15 before it calls itself ready.
PATIENCE = 90
# Every port that the stack knows by number.
PORTS = [3100, 9096, 4222, 8222, 4317, 4318, 16685, 16686, 13133, 8080, 9000, 9901, 9902]
# Each service of ours and its admin port, which compose leaves at the default.
ADMIN = {"proxy": 9901, "consumer": 9902}
# In this order they are started; in the other one they are stopped.
ORDER = ["nats", "loki", "jaeger", "example-upstream", "proxy", "consumer"]


class Stack:
    """`with Stack(root, report) as stack`: all processes are up and healthy inside."""

    def __init__(self, root, report):
        self.root, self.report = root, report
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sidelog-stack-"))
        self.services = compose.model(root, Report("stack", silent=True))["services"]
        self.ports = dict(zip(PORTS, free_ports(len(PORTS))))
        self.processes = []
        self.loki = Loki(f"http://127.0.0.1:{self.ports[3100]}")

    def __enter__(self):
        try:
            for name in ORDER:
                self.start(name)
            for name in ORDER:
                self.wait_until_healthy(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name, process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                self.report.expect(False, f"{name} stops within 30 s of SIGTERM")
        shutil.rmtree(self.folder)

    def moved(self, text):
        """`text` with this machine's ports, folders and addresses in the place of the containers'."""
        text = re.sub(r"\b(?:%s)(?=:\d)" % "|".join(ORDER), "127.0.0.1", text)
        text = re.sub(r"\b0\.0\.0\.0(?=:)", "127.0.0.1", text)
        return re.sub(r"(?<![\d.])\d{4,5}(?![\d.\w])", lambda m: str(self.ports.get(int(m[0]), m[0])), text)

    def file(self, service, target):
        """What compose mounts at `target`, moved."""
        source = next(v["source"] for v in self.services[service]["volumes"] if v["target"] == target)
        copy = self.folder / f"{service}-{os.path.basename(target)}"
        text = self.moved(pathlib.Path(source).read_text())
        for volume in self.services[service]["volumes"]:
            if volume["type"] == "volume":
                own = self.folder / volume["source"]
                own.mkdir(exist_ok=True)
                text = re.sub(rf"(?<![\w./]){re.escape(volume['target'])}(?=[/\s]|$)", str(own), text, flags=re.M)
        copy.write_text(text)
        return str(copy)

    def start(self, name):
        service = self.services[name]
        environment = {key: self.moved(str(value)) for key, value in service.get("environment", {}).items()}
        if name in ADMIN:
            environment["SIDELOG_ADMIN__ADDRESS"] = f"127.0.0.1:{self.ports[ADMIN[name]]}"
        if "SIDELOG_CONFIG" in environment:
            environment["SIDELOG_CONFIG"] = self.file(name, environment["SIDELOG_CONFIG"])
            environment["SIDELOG_SPOOL__DIRECTORY"] = str(self.folder)
        arguments = service.get("command") or []
        mounted = [volume["target"] for volume in service.get("volumes", []) if volume["type"] == "bind"]
        for target in mounted:
            arguments = [argument.replace(target, self.file(name, target)) for argument in arguments]
        program = {"nats": TOOLS / "nats-server", "loki": TOOLS / "loki", "jaeger": TOOLS / "jaeger-v2"}.get(name)
        if not program:
            program = BINARIES / {"example-upstream": name}.get(name, f"sidelog-{name}")
        environment |= {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        log = (self.folder / f"{name}.log").open("wb")
        command = [program, *arguments]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)
        self.processes.append((name, process))

    def wait_until_healthy(self, name):
        """Asks what compose's health check asks."""
        test = self.services[name]["healthcheck"]["test"]
        url = self.moved(test[-1]) if test[-1].startswith("http") else f"{self.loki.url}/ready"
        process = dict(self.processes)[name]

        def healthy():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended:\n{(self.folder / f'{name}.log').read_text()[-3000:]}")
            return get(url)[0] == 200

        healthy_at_last = eventually(healthy)
        self.report.expect(healthy_at_last, f"{name} becomes healthy: {url}")

    def check(self):
        """Visitors, their records in Loki and their traces in Jaeger; and records as the golden files have them."""
        visit = self.root / "config/load/visit.sh"
        environment = {"PATH": os.environ["PATH"], "TARGET": f"http://127.0.0.1:{self.ports[8080]}", "PAUSE": "0.01"}
        visitor = subprocess.Popen(["sh", visit], env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        self.processes.append(("visit.sh", visitor))
        self.publish(golden())
        for status in ("200", "201", "400", "404", "409", "422", "500"):
            query = '{service="api-service", env="development"} | http_response_status_code="%s"' % status
            arrived = eventually(lambda query=query: self.loki.ask(query, False)[1])
            self.report.expect(arrived, f"the visitors' records with status {status} are in Loki")
        os.killpg(visitor.pid, signal.SIGTERM)
        self.report.expect(eventually(self.loki.learn), "the golden records are in Loki")
        self.check_trace()

    def check_trace(self):
        """One trace has the proxy's span, and below it the example's."""
        url = f"http://127.0.0.1:{self.ports[16686]}/api/traces/{self.loki.trace_id}"

        def spans():
            status, body = get(url)
            data = json.loads(body)["data"] if status == 200 else []
            if not data or len(data[0]["spans"]) < 2:
                return None
            names = {key: process["serviceName"] for key, process in data[0]["processes"].items()}
            return {names[span["processID"]]: span for span in data[0]["spans"]}

        found = eventually(spans) or {}
        if self.report.expect(found.keys() == {"api-service", "example-upstream"}, f"Jaeger has both spans: {url}"):
            parents = [reference["spanID"] for reference in found["example-upstream"]["references"]]
            self.report.expect(parents == [found["api-service"]["spanID"]], "the proxy's span is the example's parent")

    def publish(self, records):
        """One message with all of them, as any program may send it."""
        payload = "\n".join(records).encode()
        with socket.create_connection(("127.0.0.1", self.ports[4222]), timeout=10) as connection:
            connection.sendall(b'CONNECT {"verbose":false}\r\nPUB logs.golden %d\r\n' % len(payload))
            connection.sendall(payload + b"\r\nPING\r\n")
            answer = b""
            while b"PONG" not in answer:
                answer += connection.recv(4096)


class Loki:
    """What the check asks Loki, and what it learned of the records there."""

    def __init__(self, url):
        self.url = url
        self.labels, self.metadata, self.keys, self.trace_id = set(), set(), set(), ""

    def ask(self, query, instant):
        """(what Loki says against the query, the values it finds)."""
        now = time.time()
        path, when = ("query", {"time": int(now)}) if instant else ("query_range", {"start": int(now) - 600})
        parameters = urllib.parse.urlencode({"query": query, "limit": 100, "step": 15, **when})
        status, body = get(f"{self.url}/loki/api/v1/{path}?{parameters}")
        if status != 200:
            return body.strip() or f"status {status}", []
        result = json.loads(body)["data"]["result"]
        values = [value for series in result for value in series.get("values", [series.get("value")])]
        return None, [value for value in values if value[1] != "NaN"]

    def learn(self):
        """Reads the names that records have, from the records: labels, structured metadata, JSON keys."""
        query = urllib.parse.urlencode({"query": '{service=~".+"}', "limit": 1000, "start": int(time.time()) - 600})
        flags = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
        status, body = get(f"{self.url}/loki/api/v1/query_range?{query}", flags)
        for stream in json.loads(body)["data"]["result"] if status == 200 else []:
            self.labels |= stream["stream"].keys()
            for _, line, extra in stream["values"]:
                metadata, record = extra.get("structuredMetadata", {}), json.loads(line)
                self.metadata |= metadata.keys()
                self.keys |= record.keys()
                # One of the visitors', for the golden ones have no spans.
                if record.get("user_agent.original") == "sidelog-load" and "http.route" in record:
                    self.trace_id = metadata["trace_id"]
        return self.trace_id and {"dropped", "request_id"} <= self.keys


def golden():
    """The golden records, as if they had ended now: Loki refuses old ones."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    for name in ("full", "loss"):
        line = (REPOSITORY / f"record/tests/golden/{name}.json").read_text().strip()
        yield re.sub(r'"observed_timestamp":"[^"]*"', f'"observed_timestamp":"{now}"', line)


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def get(url, headers=None):
    """(status, body); status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def eventually(condition):
    """What `condition` gives as soon as it is true; false after the time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    return False

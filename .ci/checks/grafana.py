"""Grafana's dashboards and data sources: against its schema, against each other, and every query against real records.

A data source's keys are held against Grafana's documentation of provisioning (there is no published schema of it);
dashboards are read by the tool `dashboards`, which knows Grafana's schema.
"""

import json
import re

import yaml

from report import TOOLS, run

DASHBOARDS = "config/grafana/dashboards"
DATASOURCES = "config/grafana/provisioning/datasources/sidelog.yaml"
PROVIDERS = "config/grafana/provisioning/dashboards/sidelog.yaml"

# https://grafana.com/docs/grafana/latest/administration/provisioning/ and the pages of the two data sources.
DATASOURCE = {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData"}
LOKI_DATA = {"maxLines", "timeout", "derivedFields"}
DERIVED_FIELD = {"name", "matcherType", "matcherRegex", "url", "urlDisplayLabel", "datasourceUid"}
JAEGER_DATA = {"tracesToLogsV2", "nodeGraph"}
PROMETHEUS_DATA = {"exemplarTraceIdDestinations"}
EXEMPLAR = {"name", "datasourceUid"}
TRACES_TO_LOGS = {"datasourceUid", "spanStartTimeShift", "spanEndTimeShift", "filterByTraceID", "filterBySpanID"}
TRACES_TO_LOGS |= {"customQuery", "query"}
PROVIDER = {"name", "type", "allowUiUpdates", "updateIntervalSeconds", "options"}

# Words of LogQL that stand where a name could; functions are told by the bracket behind them.
WORDS = {"by", "without", "or", "and", "unless", "json", "unwrap", "line_format", "on", "ignoring"}
# What Loki itself adds.
OF_LOKI = {"__error__"}
# Variables of Grafana's own, and what stands for them while asking.
BUILT_IN = {"__auto": "5m", "__interval": "5m", "__range": "5m"}


def dashboards(root):
    """Every dashboard, by its file's name."""
    files = sorted((root / DASHBOARDS).glob("*.json"))
    return {file.name: json.loads(file.read_text()) for file in files}


def datasources(root):
    return yaml.safe_load((root / DATASOURCES).read_text())["datasources"]


def check(root, report):
    """What can be said without records."""
    files = sorted((root / DASHBOARDS).glob("*.json"))
    report.expect(files, "there are dashboards")
    run([TOOLS / "dashboards", *files], report, "the dashboards are as Grafana's schema describes them")
    uids = check_datasources(root, report)
    titles = {board["title"]: board for board in dashboards(root).values()}
    report.expect("Microservices Logs" in titles, 'a dashboard is called "Microservices Logs"')
    for title, board in titles.items():
        check_board(title, board, uids, report)
    for provider in yaml.safe_load((root / PROVIDERS).read_text())["providers"]:
        report.expect(provider.keys() == PROVIDER, f"{PROVIDERS}: the keys are {sorted(PROVIDER)}")
        compose = (root / "compose.yml").read_text()
        mounted = f"./{DASHBOARDS}:{provider['options']['path']}:ro" in compose
        report.expect(mounted, f"compose.yml mounts {DASHBOARDS} where the provider looks")


def check_datasources(root, report):
    """The keys of the data sources, and what they point to. Gives back their uids."""
    compose = yaml.safe_load((root / "compose.yml").read_text())["services"]
    sources = datasources(root)
    uids = {source["uid"] for source in sources}

    def keys(data, allowed, where):
        unknown = ", ".join(sorted(data.keys() - allowed))
        report.expect(not unknown, f"{DATASOURCES}: {where}: Grafana knows no {unknown}")

    for source in sources:
        where, data = source["name"], source["jsonData"]
        keys(source, DATASOURCE, where)
        host, _, port = source["url"].removeprefix("http://").partition(":")
        published = " ".join(compose.get(host, {}).get("ports", []))
        report.expect(f":{port}" in published, f"{DATASOURCES}: {where}: compose.yml has {source['url']}")
        keys(data, {"loki": LOKI_DATA, "jaeger": JAEGER_DATA, "prometheus": PROMETHEUS_DATA}[source["type"]], f"{where}: jsonData")
        links = [*data.get("derivedFields", []), *data.get("exemplarTraceIdDestinations", [])]
        links += filter(None, [data.get("tracesToLogsV2")])
        report.expect(links, f"{DATASOURCES}: {where} links to the other one")
        for link in links:
            known = DERIVED_FIELD if "matcherType" in link else EXEMPLAR if "name" in link else TRACES_TO_LOGS
            keys(link, known, f"{where}: link")
            good = link["datasourceUid"] in uids - {source["uid"]}
            report.expect(good, f"{DATASOURCES}: {where} links to a data source that is there")
    return uids


def check_board(title, board, uids, report):
    """Panels and variables among each other."""
    ids = [panel["id"] for panel in board["panels"]]
    report.expect(len(ids) == len(set(ids)), f"{title}: no two panels have the same id")
    variables = [variable["name"] for variable in board["templating"]["list"]]
    wanted = {"service", "environment", "route", "level", "search"} if title == "Microservices Logs" else set()
    report.expect(wanted <= set(variables), f"{title}: has the variables {sorted(wanted)}")
    used = set(re.findall(r'"(?:uid|datasourceUid)": "([^"]+)"', json.dumps(board["panels"])))
    report.expect(used <= uids, f"{title}: its data sources are provisioned ({sorted(used - uids)} are not)")
    placed = sorted((panel["gridPos"] for panel in board["panels"]), key=lambda grid: (grid["y"], grid["x"]))
    taken = set()
    for grid in placed:
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        report.expect(not cells & taken and grid["x"] + grid["w"] <= 24, f"{title}: no panel lies on another ({grid})")
        taken |= cells


def queries(root):
    """Every LogQL query: (where it is, the query, whether it asks for one moment)."""
    found = []
    for name, board in dashboards(root).items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == "loki":
                    where = f"{name}: {panel['title']} {target['refId']}"
                    found.append((where, target["expr"], target["queryType"] == "instant"))
        for variable in board["templating"]["list"]:
            if variable["type"] == "query" and variable["datasource"]["type"] == "loki":
                stream = variable["query"]["stream"] or "{%s=~`.+`}" % variable["query"]["label"]
                found.append((f"{name}: variable {variable['name']}", stream, False))
    for source in datasources(root):
        if link := source["jsonData"].get("tracesToLogsV2"):
            query = link["query"].replace("$$", "$")
            found.append((f"{DATASOURCES}: {source['name']}", query, False))
    return found


def promql(root):
    """Every PromQL query of the dashboards: (where it is, the query as Grafana asks it)."""
    found = []
    for name, board in dashboards(root).items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == "prometheus":
                    query = target["expr"].replace("$__rate_interval", "5m").replace("$service", ".+")
                    found.append((f"{name}: {panel['title']} {target['refId']}", query))
    return found


def readme_queries(root):
    """The queries that the README gives to people, one a line."""
    blocks = re.findall(r"^```logql\n(.*?)^```$", (root / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def check_readme(root, loki, report):
    """Each query of the README is LogQL and names only what records have."""
    asked = readme_queries(root)
    report.expect(asked, "the README has queries")
    for query in asked:
        for kind, names in unknown_names(query, loki).items():
            report.expect(not names, f"README.md: no record has the {kind} {', '.join(names)}: {query}")
        error, _ = loki.ask(query, False)
        report.expect(not error, f"README.md: Loki refuses it: {error}: {query}")


def check_queries(root, loki, report):
    """Each query is LogQL, names only what records have, and finds something."""
    variables = {"service": ".+", "environment": ".+", "level": ".+", "__trace.traceId": loki.trace_id, **BUILT_IN}
    for board in dashboards(root).values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                if variable["datasource"]["type"] != "loki":
                    continue
                label = variable["query"]["label"]
                report.expect(label in loki.labels, f"variable {variable['name']}: the consumer sends a label {label}")
            else:
                variables[variable["name"]] = variable["current"]["value"]
    asked = queries(root)
    report.expect(asked, "there are queries")
    for where, query, instant in asked:
        filled = re.sub(r"\$\{([\w.]+)\}|\$(\w+)", lambda m: variables.get(m[1] or m[2], m[0]), query)
        if not report.expect("$" not in filled, f"{where}: every variable is there: {filled}"):
            continue
        for kind, names in unknown_names(filled, loki).items():
            report.expect(not names, f"{where}: no record has the {kind} {', '.join(names)}: {query}")
        error, values = loki.ask(filled, instant)
        report.expect(not error, f"{where}: Loki refuses it: {error}: {query}")
        report.expect(error or values, f"{where}: Loki finds nothing: {filled}")
    for source in datasources(root):
        for field in source["jsonData"].get("derivedFields", []):
            good = field["matcherRegex"] in loki.labels | loki.metadata
            report.expect(good, f"{DATASOURCES}: the consumer sends {field['matcherRegex']}")


def unknown_names(query, loki):
    """The names in a query that no record has: labels, those outside the selector too, and JSON keys."""
    selectors = re.findall(r"\{((?:[^{}\"`]|\"[^\"]*\"|`[^`]*`)*)\}", query)
    selected = {name for selector in selectors for name in re.findall(r"(\w+)\s*(?:=|!)", unquoted(selector))}
    aliases, keys = set(), set()
    for stage in re.findall(r"\|\s*json\s+((?:\w+=\"(?:[^\"\\]|\\.)*\"[,\s]*)+)", query):
        for alias, path in re.findall(r"(\w+)=\"((?:[^\"\\]|\\.)*)\"", stage):
            aliases.add(alias)
            keys.add(re.sub(r"^\[\\\"(.*)\\\"\]$", r"\1", path))
    known = loki.labels | loki.metadata | aliases | OF_LOKI | WORDS
    bare = re.sub(r"\[[^]]*\]", "", unquoted(query))
    names = set(re.findall(r"(?<![\w.])([a-z_]\w*)\b(?!\s*(?:\(|by\b|without\b))", bare))
    for template in re.findall(r"line_format\s*`([^`]*)`", query):
        names |= set(re.findall(r"\.(\w+)", template))
    return {
        "label": sorted(selected - loki.labels),
        "label or metadata": sorted(names - known),
        "JSON key": sorted(keys - loki.keys),
    }


def unquoted(text):
    return re.sub(r"\"(?:[^\"\\]|\\.)*\"|`[^`]*`", '""', text)

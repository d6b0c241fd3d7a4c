"""Shows sidelog records for people: records.py table|full|follow FILE (newline-delimited JSON).

table   one line per exchange
full    the last record that has a request body, all of it
follow  one line per exchange that is added from now on
"""

import json
import sys
import time

COLUMNS = "{time:<12}  {method:<7} {path:<22} {status:>6} {ms:>9}  {trace}"


def line(record):
    end = record.get("end", "")
    status = str(record.get("http.response.status_code", "-"))
    text = COLUMNS.format(
        time=record.get("timestamp", "")[11:23],
        method=record.get("http.request.method", "-"),
        path=record.get("url.path", "-"),
        status=status,
        ms="%.2f ms" % record.get("duration_ms", 0.0),
        trace=record.get("trace_id", "-"),
    )
    return text if end == "complete" else "%s  %s" % (text, end)


def table(records):
    print(COLUMNS.format(time="time", method="method", path="path", status="status", ms="duration", trace="trace id"))
    for record in sorted(records, key=lambda record: record.get("timestamp", "")):
        print(line(record))


def full(records):
    with_body = [record for record in records if record.get("http.request.body.content")]
    for record in (with_body or records)[:1]:
        print(json.dumps(record, indent=2, ensure_ascii=False))


def follow(file):
    file.seek(0, 2)
    cut = ""
    while True:
        cut += file.readline()
        if cut.endswith("\n"):
            print(line(json.loads(cut)), flush=True)
            cut = ""
        else:
            time.sleep(0.2)


def main():
    what, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        if what == "follow":
            follow(file)
        else:
            records = [json.loads(text) for text in file]
            {"table": table, "full": full}[what](records)


if __name__ == "__main__":
    main()

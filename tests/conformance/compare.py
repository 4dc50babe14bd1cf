"""Runs the suite in FOLDER/tests straight and through the gateway, and compares
test by test.

    compare.py FOLDER WORK DIFFERENCES [argument of pytest ...]

A line of DIFFERENCES: a test's name, `#`, and why the contract demands it.
"""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ElementTree

from rig import Gateway, Process, free_port, until


def outcomes(report: pathlib.Path) -> dict[str, tuple[str, str]]:
    """What became of each test, and the first line of why."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        verdict, why = "passed", ""
        for kind in ("failure", "error", "skipped"):
            if (child := case.find(kind)) is not None:
                verdict, why = kind, (child.get("message") or "").partition("\n")[0][:200]
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.")
        # Ports are another each time.
        found[re.sub(r"127\.0\.0\.1:\d+", "HOST", name)] = (verdict, why)
    return found


def run(name: str, url: str, root: str, work: pathlib.Path, arguments) -> dict:
    report = work / f"{name}.xml"
    environment = {**os.environ, "CONFORMANCE_URL": url}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "elsewhere", "-p", "no:cacheprovider", f"--junitxml={report}", f"--rootdir={root}", "tests", *arguments]
    with (work / f"{name}.txt").open("w") as out:
        subprocess.run(command, cwd=root, env=environment, stdout=out, stderr=subprocess.STDOUT, timeout=900, check=False)
    if not report.exists():
        sys.exit((work / f"{name}.txt").read_text())
    found = outcomes(report)
    counts = {verdict: sum(1 for other, _ in found.values() if other == verdict) for verdict in ("passed", "failure", "error", "skipped")}
    print(f"{name}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items() if count)}")
    return found


def requests_served(gateway: Gateway) -> int:
    text = urllib.request.urlopen(gateway.url + "/metrics", timeout=5).read().decode()
    counted = re.findall(r'^tollgate_upstream_requests_total\{.*?\} (\d+)', text, re.M) or re.findall(r'^tollgate_\w*requests_total\{.*?\} (\d+)', text, re.M)
    return sum(int(count) for count in counted)


def main() -> int:
    root, work, differences, *arguments = sys.argv[1:]
    work = pathlib.Path(work)
    explained = {}
    for line in pathlib.Path(differences).read_text().splitlines():
        name, _, why = line.partition("#")
        if name.strip():
            explained[name.strip()] = why.strip()

    port = free_port()
    command = [str(pathlib.Path(sys.executable).parent / "waitress-serve"), f"--listen=127.0.0.1:{port}", "--threads=8", "httpbin:app"]
    upstream = f"http://127.0.0.1:{port}"
    table = f"[[upstreams]]\nname = 'httpbin'\nmount = '/'\nauth = 'public'\nurl = '{upstream}'\n"
    with contextlib.ExitStack() as stack:
        stack.enter_context(Process(command, str(work)))
        until("httpbin answers", lambda: urllib.request.urlopen(upstream + "/get", timeout=5), 30)
        straight = run("straight", upstream, root, work, arguments)
        gateway = stack.enter_context(Gateway(table))
        through = run("through the gateway", gateway.url, root, work, arguments)
        served = requests_served(gateway)
    print(f"the gateway served {served} requests")

    bad = 0 if served > 100 or arguments else 1
    for name in sorted(straight.keys() | through.keys()):
        here, there = straight.get(name, ("missing", ""))[0], through.get(name, ("missing", ""))
        if here != there[0] and name not in explained:
            bad += 1
            print(f"  {name}: {here}, but through the gateway {there[0]}: {there[1]}")
        elif here == there[0] and name in explained and not arguments:
            bad += 1
            print(f"  {name}: comes out the same, though {explained[name]}")
    for name, why in explained.items():
        print(f"  as explained: {name}: {why}")
    if arguments:
        return bad
    for name in explained.keys() - straight.keys():
        bad += 1
        print(f"  {name}: explained, but there is no such test")
    print("No difference." if not bad and not explained else f"{bad} differences that nothing explains.")
    return bad


if __name__ == "__main__":
    sys.exit(1 if main() else 0)

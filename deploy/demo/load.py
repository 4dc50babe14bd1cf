#!/usr/bin/env python3
"""Traffic of every kind against a Tollgate of its own, for dashboards to show.

    deploy/demo/load.py [--seconds 60] [--check] [--program PATH]

Starts an embedded Tollgate with TLS, a backend and a chat workflow on free ports,
and sends keys, refusals, errors, WebSockets, event streams, chats, logins and passes.
With --check a real Prometheus (`prometheus` in PATH) scrapes it, and every query of
the dashboard must have data in the end. Python's standard library and openssl only.
"""
import argparse
import http.client
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSWORD = "a demo of Zebras, 4711"
ORIGIN = "https://shop.example.com"
TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers, fails, streams, upgrades, and chats, by path."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/webhook"):
            return self.answer(200, b'{"output": "an answer"}', "application/json")
        self.answer(200, b"taken")

    def do_GET(self):
        if "websocket" in self.headers.get("Upgrade", "").lower():
            return self.upgrade()
        if self.path.startswith("/events"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number in range(20):
                self.wfile.write(f"data: {number}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.25)
            self.close_connection = True
            return None
        if self.path.startswith("/break"):
            self.close_connection = True
            return None
        if self.path.startswith("/fail"):
            return self.answer(500, b"it failed")
        if self.path.startswith("/slow"):
            time.sleep(0.3)
        return self.answer(200, b"x" * 2048)

    def upgrade(self):
        import base64
        import hashlib
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.wfile.flush()
        while self.connection.recv(4096):
            self.connection.sendall(b"\x81\x02ok")
        self.close_connection = True


class Client:
    """Requests over TLS, one connection each time."""

    def __init__(self, port, secure):
        self.port, self.secure = port, secure

    def send(self, method, path, fields=None, body=None, read=True):
        fields = dict(fields or {})
        if isinstance(body, dict):
            body, fields["Content-Type"] = json.dumps(body), "application/json"
        if self.secure:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=TLS)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            text = response.read() if read else b""
            try:
                return response.status, json.loads(text or b"null"), response
            except ValueError:
                return response.status, None, response
        finally:
            connection.close()

    def socket(self, path, fields):
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        if self.secure:
            raw = TLS.wrap_socket(raw)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{head}\r\n".encode())
        raw.recv(4096)
        for _ in range(8):
            raw.sendall(b"\x81\x82\0\0\0\0hi")
            raw.recv(4096)
            time.sleep(0.5)
        raw.close()


class Demo:
    def __init__(self, program, folder, secure):
        self.folder, self.secure = folder, secure
        self.port, self.metrics = free_port(), free_port()
        self.backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        self.backend.daemon_threads = True
        threading.Thread(target=self.backend.serve_forever, daemon=True).start()
        backend = f"http://127.0.0.1:{self.backend.server_address[1]}"
        settings = {
            "SERVER_PORT": self.port, "METRICS_PORT": self.metrics, "DATA_DIR": folder / "data",
            "ADMIN_PASSWORD": PASSWORD, "UPSTREAM_URL": backend, "CHAT_WEBHOOK_URL": f"{backend}/webhook/chat",
            "ALLOWED_ORIGINS": ORIGIN, "TOKEN_PRICE_1H": 10, "WALLET_STARTING_BALANCE": 1000,
            "RATE_LIMIT_PER_MINUTE": 100000, "RATE_LIMIT_PER_HOUR": 0, "RATE_LIMIT_SESSION_PER_MINUTE": 0,
            "RATE_LIMIT_SESSION_PER_HOUR": 0, "SERVER_MAX_LAG_SECONDS": 0,
        }
        if secure:
            cert, key = folder / "cert.pem", folder / "key.pem"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                            "-nodes", "-days", "90", "-subj", "/CN=demo", "-keyout", key, "-out", cert],
                           check=True, capture_output=True)
            settings.update(SERVER_TLS_CERT=cert, SERVER_TLS_KEY=key)
        log = open(folder / "tollgate.log", "wb")
        self.process = subprocess.Popen([program, "serve"], cwd=folder, stdout=log, stderr=log,
                                        env={name: str(value) for name, value in settings.items()})
        self.client = Client(self.port, secure)
        deadline = time.time() + 30
        while True:
            try:
                if self.client.send("GET", "/health/ready")[0] == 200:
                    break
            except OSError:
                pass
            if time.time() > deadline or self.process.poll() is not None:
                sys.exit("Tollgate does not start:\n" + (folder / "tollgate.log").read_text())
            time.sleep(0.05)

    def login(self, name):
        form = urllib.parse.urlencode({"username": name, "password": PASSWORD})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer, _ = self.client.send("POST", "/api/v1/auth/login", kind, form)
        return {"Authorization": f"Bearer {answer['access_token']}"} if status == 200 else {}

    def key(self, login, **fields):
        status, answer, _ = self.client.send("POST", "/api/v1/keys", login, {"name": "demo", **fields})
        assert status == 201, answer
        return {"X-API-Key": answer["key"]}, answer["id"]

    def kinds(self):
        """What is done again and again: how often a second, and what."""
        send, name = self.client.send, f"ada{os.getpid()}"
        account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        status, answer, _ = send("POST", "/api/v1/auth/register", None, account)
        assert status == 201, answer
        login = self.login(name)
        key, _ = self.key(login)
        narrow, _ = self.key(login, rate_limit_per_minute=5)
        status, bought, _ = send("POST", "/api/v1/tokens/purchase", {**login, "Idempotency-Key": "demo"}, {"duration_hours": 1})
        ticket = {"X-Access-Token": bought["token"]} if status in (200, 201) else {}
        if not ticket:
            print(f"no pass was bought: {bought}", file=sys.stderr)

        def revoke():
            gone, identity = self.key(login)
            send("GET", "/api/v1/proxy/x", gone)
            send("DELETE", f"/api/v1/keys/{identity}", login)
            send("GET", "/api/v1/proxy/x", gone)

        def chat():
            _, _, made = send("POST", "/api/v1/session/create", {"Origin": ORIGIN},
                              {"origin_domain": "shop.example.com", "page_url": f"{ORIGIN}/"})
            cookie = (made.headers.get("Set-Cookie") or "").split(";")[0]
            send("POST", "/api/v1/chat/message", {"Origin": ORIGIN, "Cookie": cookie}, {"message": "hello"})

        def guess():
            form = urllib.parse.urlencode({"username": f"nobody{time.time_ns()}", "password": "wrong, but long enough"})
            send("POST", "/api/v1/auth/login", {"Content-Type": "application/x-www-form-urlencoded"}, form)
        return [
            (20, lambda: send("GET", "/api/v1/proxy/page", key)),
            (5, lambda: send("POST", "/api/v1/proxy/form", key, "x" * 4096)),
            (5, lambda: send("GET", "/api/v1/proxy/page", ticket)),
            (2, lambda: send("GET", "/api/v1/proxy/slow", key)),
            (1, lambda: send("GET", "/api/v1/proxy/fail", key)),
            (1, lambda: send("GET", "/api/v1/proxy/break", key)),
            (2, lambda: send("GET", "/api/v1/proxy/page", {"X-API-Key": "tg_nothing"})),
            (2, lambda: send("GET", "/api/v1/proxy/page", narrow)),
            (1, lambda: send("GET", "/api/v1/users/me", login)),
            (1, lambda: send("GET", "/nowhere")),
            (0.5, lambda: self.login(name)),
            (0.3, guess),
            (0.5, revoke),
            (1, chat),
            (0.5, lambda: send("GET", "/api/v1/proxy/events", key)),
            (0.5, lambda: self.client.socket("/api/v1/proxy/socket", key)),
        ]

    def run(self, seconds):
        end, counts, lock = time.time() + seconds, {"done": 0, "broken": 0}, threading.Lock()

        def repeat(rate, what):
            while time.time() < end:
                start = time.time()
                try:
                    what()
                    result = "done"
                except (OSError, http.client.HTTPException):
                    result = "broken"
                with lock:
                    counts[result] += 1
                time.sleep(max(0, min(end, start + 1 / rate) - time.time()))
        threads = [threading.Thread(target=repeat, args=kind) for kind in self.kinds()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return counts

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()


class Prometheus:
    """A process of its own, never the machine's service."""

    def __init__(self, folder, target):
        program = shutil.which("prometheus") or sys.exit("no prometheus: apt-get install prometheus")
        self.port = free_port()
        config = {"global": {"scrape_interval": "2s"}, "scrape_configs": [
            {"job_name": "tollgate", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]}
        (folder / "prometheus.json").write_text(json.dumps(config))
        log = open(folder / "prometheus.log", "wb")
        self.process = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.json'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log)

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def panels(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "20s").replace("$__range", "5m")
            yield panel["title"], query.replace("$job", "tollgate").replace("$instance", ".*")


def check(prometheus):
    """Every query must have points, and one must be a number."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/tollgate.json").read_text())
    now, empty, count, titles = time.time(), [], 0, set()
    for title, query in panels(dashboard):
        count += 1
        titles.add(title)
        found = prometheus.get("/api/v1/query_range", query=query, start=now - 60, end=now, step=2)["result"]
        numbers = [value for series in found for _, value in series["values"] if value not in ("NaN", "+Inf", "-Inf")]
        if not numbers:
            empty.append(f"{title}: {query}")
    print(f"{count - len(empty)} of {count} queries in {len(titles)} panels have data")
    for line in empty:
        print(f"no data: {line}")
    return not empty


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--check", action="store_true", help="with a Prometheus: every panel must have data")
    parser.add_argument("--plain", action="store_true", help="without TLS; its panels stay empty")
    parser.add_argument("--program", default=str(ROOT / "target/release/tollgate"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        demo = Demo(os.path.abspath(options.program), folder, not options.plain)
        prometheus = None
        try:
            print(f"https://127.0.0.1:{demo.port}, metrics http://127.0.0.1:{demo.metrics}/metrics", flush=True)
            if options.check:
                prometheus = Prometheus(folder, demo.metrics)
            counts = demo.run(options.seconds)
            print(f"{counts['done']} exchanges, {counts['broken']} of them broken off by the backend")
            good = prometheus is None or check(prometheus)
            if prometheus and shutil.which("promtool"):
                with urllib.request.urlopen(f"http://127.0.0.1:{demo.metrics}/metrics") as text:
                    linted = subprocess.run(["promtool", "check", "metrics"], input=text.read(), capture_output=True)
                print("promtool check metrics:", linted.returncode, linted.stderr.decode().strip() or "nothing to say")
        finally:
            if prometheus:
                prometheus.stop()
            code = demo.stop()
        if code != 0:
            sys.exit(f"Tollgate ended with {code}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

"""What the tests in browsers share: a gateway of their own, and a browser."""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

USER, PASSWORD = "ada", "correct horse battery"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(what: str, check, seconds=10.0):
    """The first true value of `check`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if value := check():
                return value
        time.sleep(0.05)
    sys.exit(f"not within {seconds} s: {what}")


class Process:
    """A program that ends with the block; its output is shown if it fails."""

    def __init__(self, command, folder: str, **environment):
        self.log = pathlib.Path(folder) / f"{pathlib.Path(command[0]).name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"], "HOME": folder, **environment})

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            print("\n".join(self.log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)


class Gateway(Process):
    """Tollgate before some upstreams, with one user and that user's key."""

    def __init__(self, upstreams: str, **settings):
        self.folder = tempfile.TemporaryDirectory(prefix="tollgate-browser.")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (pathlib.Path(self.folder.name) / "tollgate.toml").write_text(upstreams)
        self.admin = secrets.token_urlsafe(24)
        settings = {"RATE_LIMIT_PER_MINUTE": "1000000", "RATE_LIMIT_PER_HOUR": "1000000", "LOG_LEVEL": "WARN", **settings}
        super().__init__([os.environ["TOLLGATE_BIN"], "serve"], self.folder.name, DATA_DIR=self.folder.name, SERVER_PORT=str(self.port), ADMIN_PASSWORD=self.admin, **settings)

    def __enter__(self):
        def ready():
            if self.process.poll() is not None:
                sys.exit(f"the gateway did not start:\n{self.log.read_text()}")
            return urllib.request.urlopen(self.url + "/health/ready", timeout=5)

        until("the gateway answers", ready, 30)
        self.call("/api/v1/auth/register", username=USER, email="ada@example.com", password=PASSWORD)
        self.token = self.call("/api/v1/auth/login", username=USER, password=PASSWORD)["access_token"]
        self.key = self.call("/api/v1/keys", name="rig")["key"]
        return self

    def __exit__(self, *error):
        super().__exit__(*error)
        self.folder.cleanup()

    def call(self, path: str, **body) -> dict:
        headers = {"Content-Type": "application/json"}
        if hasattr(self, "token"):
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            sys.exit(f"{path} answered {error.code}: {error.read().decode()}")


class Https(Process):
    """nginx, which speaks TLS in front of a gateway, as in most deployments; else as it comes."""

    CONFIG = """
        daemon off; master_process off; pid nginx.pid; error_log stderr; events {}
        http {
            access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
            map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
            server {
                listen 127.0.0.1:%d ssl; ssl_certificate certificate; ssl_certificate_key key; client_max_body_size 0;
                location / {
                    proxy_pass %s; proxy_http_version 1.1;
                    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
                }
            }
        }"""
    # Debian keeps servers where only root's PATH leads.
    PATH = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"

    @classmethod
    def is_here(cls) -> bool:
        return bool(shutil.which("nginx", path=cls.PATH) and shutil.which("openssl"))

    def __init__(self, gateway: Gateway):
        self.folder = tempfile.TemporaryDirectory(prefix="tollgate-https.")
        folder, port = pathlib.Path(self.folder.name), free_port()
        self.url = f"https://127.0.0.1:{port}"
        (folder / "nginx.conf").write_text(self.CONFIG % (port, gateway.url))
        name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", "key", "-out", "certificate", *name]
        subprocess.run(made, cwd=folder, check=True, capture_output=True)
        public = ["openssl", "pkey", "-in", "key", "-pubout", "-outform", "DER"]
        public = subprocess.run(public, cwd=folder, check=True, capture_output=True).stdout
        # The only thing that the browser is to trust beside what it knows.
        self.trusted = base64.b64encode(hashlib.sha256(public).digest()).decode()
        nginx = shutil.which("nginx", path=self.PATH)
        super().__init__([nginx, "-e", "stderr", "-c", str(folder / "nginx.conf"), "-p", str(folder)], self.folder.name)
        self.port = port

    def __enter__(self):
        until("nginx answers", lambda: socket.create_connection(("127.0.0.1", self.port), 5).close() or True)
        return self

    def __exit__(self, *error):
        super().__exit__(*error)
        self.folder.cleanup()


@contextlib.contextmanager
def browser(trusted=""):
    """The system's Chromium, headless; it takes certificates of the key with this digest."""
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"]
    if trusted:
        arguments.append(f"--ignore-certificate-errors-spki-list={trusted}")
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=arguments)
        try:
            yield started
        finally:
            started.close()


def sign_in(page, wanted: str):
    """Asks for a page, is led to the login page, and back."""
    page.goto(wanted)
    path = page.evaluate("location.pathname")
    assert path in ("/login", "/.tollgate/login"), f"{wanted} led to {page.url}"
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.click("form:has(input[name=password]) button")
    page.wait_for_url(wanted)


def sign_out(page, origin: str, path="/logout"):
    page.goto(origin + path)
    page.click("form button")
    page.wait_for_load_state()

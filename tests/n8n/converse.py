"""The conversation with n8n: see `run`."""

import http.cookiejar
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from rig import Gateway, Process, free_port, until

ORIGIN = "http://shop.example.com"
WORKFLOW = pathlib.Path(__file__).with_name("chat.json")


class N8n(Process):
    """n8n with the workflow, which asks nobody else for anything."""

    def __init__(self, folder: str):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        off = ["N8N_DIAGNOSTICS_ENABLED", "N8N_VERSION_NOTIFICATIONS_ENABLED", "N8N_TEMPLATES_ENABLED", "N8N_PERSONALIZATION_ENABLED", "N8N_HIRING_BANNER_ENABLED", "N8N_COMMUNITY_PACKAGES_ENABLED", "EXTERNAL_FRONTEND_HOOKS_URLS", "N8N_RUNNERS_ENABLED"]
        settings = {name: "false" for name in off} | {"EXTERNAL_FRONTEND_HOOKS_URLS": "", "N8N_USER_FOLDER": folder, "N8N_PORT": str(self.port), "N8N_LISTEN_ADDRESS": "127.0.0.1", "N8N_ENFORCE_SETTINGS_FILE_PERMISSIONS": "true", # Its newer engine for expressions is a package that builds on newer Nodes alone.
                                                         "N8N_EXPRESSION_ENGINE": "legacy"}
        self.settings = {"PATH": os.environ["PATH"], "HOME": folder, **settings}
        for command in [["import:workflow", f"--input={WORKFLOW}"], ["update:workflow", "--all", "--active=true"]]:
            done = subprocess.run([os.environ["N8N"], *command], cwd=folder, env=self.settings, capture_output=True, text=True, timeout=240, check=False)
            if done.returncode != 0:
                sys.exit(f"n8n {command[0]} failed:\n{done.stdout}\n{done.stderr}")
        super().__init__([os.environ["N8N"], "start"], folder, **settings)

    def __enter__(self):
        def ready():
            if self.process.poll() is not None:
                sys.exit(f"n8n did not start:\n{self.log.read_text()}")
            # It says that it is ready before it knows its workflows.
            try:
                urllib.request.urlopen(self.url + "/webhook/wrong/chat", timeout=5)
            except urllib.error.HTTPError as error:
                return "POST request" in error.read().decode()

        until("n8n is ready", ready, 240)
        return self


class Visitor:
    """A browser without a screen: a cookie, and an origin."""

    def __init__(self, gateway: str):
        self.gateway = gateway
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
        with self.ask("/session/create", {"origin_domain": "shop.example.com"}) as answer:
            self.session = json.load(answer)["session_id"]

    def ask(self, path: str, body=None):
        headers = {"Origin": ORIGIN, "Content-Type": "application/json", "Accept": "text/event-stream"}
        data = json.dumps(body).encode() if body is not None else None
        return self.opener.open(urllib.request.Request(f"{self.gateway}/api/v1{path}", data, headers), timeout=60)

    def say(self, message: str):
        """The text of the answer, the last event, and when each part came."""
        text, times, name = "", [], ""
        with self.ask("/chat/message", {"message": message, "client_message_id": "m-1"}) as answer:
            for line in answer:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                if line.startswith("data: ") and name == "item":
                    text += json.loads(line[6:])["content"]
                    times.append(time.monotonic())
        return text, name, times

    def history(self):
        with self.ask(f"/chat/history/{self.session}") as answer:
            return [(item["role"], item["content"], item["status"]) for item in reversed(json.load(answer)["items"])]


def converse(n8n: N8n, path: str, message: str):
    settings = {"CHAT_WEBHOOK_URL": f"{n8n.url}/webhook/{path}/chat", "ALLOWED_ORIGINS": ORIGIN}
    with Gateway("", **settings) as gateway:
        visitor = Visitor(gateway.url)
        return (*visitor.say(message), visitor.history())


def main():
    failed = []

    def check(what: str, seen, expected):
        print(f"{'ok' if seen == expected else 'FAILED'}: {what}: {seen!r}")
        if seen != expected:
            failed.append(what)

    with tempfile.TemporaryDirectory(prefix="tollgate-n8n.") as folder, N8n(folder) as n8n:
        text, end, _, history = converse(n8n, "plain", "hello")
        check("a plain answer", (text, end), ("plain: hello from shop.example.com", "end"))
        check("its history", history, [("user", "hello", "complete"), ("assistant", text, "complete")])
        text, end, times, history = converse(n8n, "streamed", "grüße")
        check("a streamed answer", (text, end), ("streamed: grüße, and then the rest", "end"))
        check("its history", history[1:], [("assistant", text, "complete")])
        # The workflow waits for two seconds between its parts.
        check("it came in parts, as they were made", bool(times) and times[-1] - times[0] > 1, True)
        text, end, _, history = converse(n8n, "wrong", "fail")
        check("a workflow that fails tells nothing", (text, end, history[1][1:]), ("", "error", ("", "failed")))
    print("n8n: everything passed" if not failed else f"n8n: FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

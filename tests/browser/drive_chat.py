"""The chat widget in Chromium: the demo page, pages of other origins, a page that
admits little, a connection that breaks.

    drive_chat.py

Pictures of it are in `target/browser`.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time

from rig import Gateway, browser, until

SHOTS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")).absolute() / "browser"
ANSWER = "Yes: **in red**, too.\n\n```\n<b>not markup</b>\n```\n\nSee https://shop.example.com/red, <img src=x onerror=alert(1)> and javascript:alert(1)."
# One line, with an address that ends in marks for long.
LONG = "https://shop.example.com/" + ")." * 100_000 + "x " + "word " * 40_000 + "end."
# Allows this script and no more, as strictly as a page can.
STRICT = "default-src 'none'; script-src {gate}; connect-src {gate}; base-uri 'none'; require-trusted-types-for 'script'"


class Server(socketserver.ThreadingTCPServer):
    """On a free port, in a thread of its own."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


class Workflow(Server):
    """Answers piece by piece, as fast as the test lets it."""

    def __init__(self):
        self.asked, self.go = [], threading.Semaphore(0)
        workflow = self

        class Handler(Quiet):
            def do_POST(self):
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["chatInput"]
                workflow.asked.append(question)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                parts = re.findall(r"\S+\s*", ANSWER if question == "markup" else f"One two three four five: {question}.")
                if question == "long":
                    parts = [LONG[at:at + 400] for at in range(0, len(LONG), 400)]
                for part in [{"type": "begin"}, *({"type": "item", "content": part} for part in parts), {"type": "end"}]:
                    if question not in ("markup", "long"):
                        workflow.go.acquire()
                    line = json.dumps(part).encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

        super().__init__(Handler)

    def let(self, parts: int):
        self.go.release(parts)


class Site(Server):
    """A page of somebody's, with the widget."""

    def __init__(self, attributes="", policy=""):
        self.gate, site = "", self
        page = "<!doctype html><html lang=en><meta charset=utf-8><title>Shop</title><h1>Shop</h1><script src='{gate}/chat/widget.js' {attributes} defer></script>"

        class Handler(Quiet):
            def do_GET(self):
                body = page.format(gate=site.gate, attributes=attributes).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                if policy:
                    self.send_header("Content-Security-Policy", policy.format(gate=site.gate))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Handler)
        self.origin = f"http://127.0.0.1:{self.port}"


class Wire(Server):
    """Bytes to the gateway and back, until they are cut."""

    def __init__(self, target: int):
        self.target, self.open = target, []
        wire = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                with socket.create_connection(("127.0.0.1", wire.target)) as there:
                    pair = (self.request, there)
                    wire.open.append(pair)
                    back = threading.Thread(target=pump, args=(there, self.request), daemon=True)
                    back.start()
                    pump(self.request, there)
                    back.join()

        super().__init__(Handler)

    def cut(self):
        for pair in self.open:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self.open.clear()


def pump(come, go):
    with contextlib.suppress(OSError):
        while data := come.recv(65536):
            go.sendall(data)
    with contextlib.suppress(OSError):
        go.shutdown(socket.SHUT_WR)


# What is wrong for those who do not see the page, or do not see it well.
CHECKS = """() => {
  const root = document.querySelector('tollgate-chat').shadowRoot, wrong = [];
  const visible = (e) => e.getClientRects().length > 0 && getComputedStyle(e).visibility === 'visible';
  const name = (e) => (e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') && root.getElementById(e.getAttribute('aria-labelledby'))?.textContent)
    || (e.labels && e.labels[0]?.textContent) || e.textContent || '').trim();
  for (const e of root.querySelectorAll('button, textarea, a, [role=dialog], [role=log]')) {
    if (visible(e) && !name(e)) wrong.push('no name: ' + e.outerHTML.slice(0, 80));
    const box = e.getBoundingClientRect();
    if (visible(e) && e.matches('button, textarea') && (box.width < 24 || box.height < 24)) wrong.push('too small: ' + name(e));
  }
  for (const ids of root.querySelectorAll('[aria-controls], [aria-describedby], [aria-labelledby]'))
    for (const a of ['aria-controls', 'aria-describedby', 'aria-labelledby'])
      if (ids.hasAttribute(a) && !root.getElementById(ids.getAttribute(a))) wrong.push(a + ' leads nowhere');
  const rgb = (text) => { const m = text.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = (c) => { const l = c.slice(0, 3).map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  let texts = 0;
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !visible(e) || e.closest('.unseen')) continue;
    texts += 1;
    const r = ratio(rgb(getComputedStyle(e).color), behind(e));
    if (r < 4.5) wrong.push(`contrast ${r.toFixed(2)}: ${walk.currentNode.data.slice(0, 30)}`);
  }
  for (const e of root.querySelectorAll('button svg')) {
    if (!visible(e)) continue;
    const r = ratio(rgb(getComputedStyle(e).stroke), behind(e));
    if (r < 3) wrong.push(`contrast ${r.toFixed(2)} of an icon: ${name(e.parentElement)}`);
  }
  const input = root.querySelector('textarea'), border = ratio(rgb(getComputedStyle(input).borderTopColor), behind(root.querySelector('.panel')));
  if (border < 3) wrong.push(`contrast ${border.toFixed(2)} of the field's border`);
  if (texts < 2) wrong.push('no texts were looked at');
  return wrong;
}"""


def watch(page):
    """What is wrong in the page, and every host that was asked."""
    seen = {"errors": [], "hosts": set()}
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("console", lambda line: line.type == "error" and seen["errors"].append(line.text))
    page.on("request", lambda request: seen["hosts"].add(request.url.split("/")[2]))
    return seen


def say(page, text: str):
    page.fill("tollgate-chat textarea", text)
    # It waits for the answer before.
    page.wait_for_selector("tollgate-chat .send[aria-disabled=false]")
    page.keyboard.press("Enter")


def last(page) -> str:
    found = page.locator("tollgate-chat .message.assistant").last
    return found.locator(".bubble").inner_text() if found.count() else ""


def grown(page, until_text: str, seconds=20):
    """The lengths that the last answer had, until it ends with this."""
    lengths, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        text = last(page)
        if len(text) and (not lengths or lengths[-1] != len(text)):
            lengths.append(len(text))
        if until_text in text:
            return lengths
        time.sleep(0.02)
    raise AssertionError(f"never: {until_text!r}; last: {last(page)!r}")


def focused(page) -> str:
    return page.evaluate("(() => { const e = document.activeElement.shadowRoot?.activeElement; return e ? e.getAttribute('part') || e.className : document.activeElement.localName })()")


def demo(chromium):
    with Gateway("", CHAT_DEMO="true") as gateway:
        context = chromium.new_context(viewport={"width": 1000, "height": 800})
        page = context.new_page()
        seen = watch(page)
        page.goto(f"{gateway.url}/chat/demo")
        page.wait_for_selector("tollgate-chat .panel")
        assert page.evaluate("document.activeElement.localName") == "body", "what opens by itself takes no focus"
        say(page, "Do you have these in red?")
        lengths = grown(page, "Load the page")
        assert len(lengths) > 5, f"it did not come piece by piece: {lengths}"
        page.screenshot(path=SHOTS / "chat-streaming.png")
        grown(page, "into your pages.")
        page.wait_for_selector("tollgate-chat .dots", state="detached")
        told = page.locator("tollgate-chat [role=status]")
        until("the answer is told when it is whole", lambda: "into your pages." in told.inner_text())
        assert page.evaluate(CHECKS) == [], page.evaluate(CHECKS)
        page.screenshot(path=SHOTS / "chat.png")
        before = page.locator("tollgate-chat .message").all_inner_texts()
        page.reload()
        page.wait_for_selector("tollgate-chat .message.assistant")
        assert page.locator("tollgate-chat .message").all_inner_texts() == before
        assert page.evaluate("Object.keys(localStorage).length") == 0
        assert "chat_session_id" not in page.evaluate("document.cookie")
        keyboard(page)
        # Another tab of the same browser shows what is said here.
        other = context.new_page()
        other.goto(f"{gateway.url}/chat/demo")
        other.wait_for_selector("tollgate-chat .message.assistant")
        say(page, "second")
        grown(other, "You said: second")
        grown(other, "into your pages.")
        other.close()
        page.wait_for_selector("tollgate-chat .dots", state="detached")
        page.click("tollgate-chat [part=forget]")
        page.click("tollgate-chat .ask button >> nth=0")
        page.wait_for_selector("tollgate-chat .message", state="detached")
        page.reload()
        page.wait_for_selector("tollgate-chat .welcome")
        assert page.locator("tollgate-chat .message").count() == 0
        assert seen["errors"] == [], seen["errors"]
        assert seen["hosts"] == {gateway.url.split("/")[2]}, seen["hosts"]
        context.close()
        for scheme, size, name in [("dark", (1000, 800), "chat-dark"), ("light", (390, 780), "chat-small")]:
            context = chromium.new_context(color_scheme=scheme, reduced_motion="reduce", viewport={"width": size[0], "height": size[1]})
            page = context.new_page()
            page.goto(f"{gateway.url}/chat/demo")
            say(page, "Hello")
            grown(page, "into your pages.")
            assert page.evaluate(CHECKS) == [], (name, page.evaluate(CHECKS))
            page.screenshot(path=SHOTS / f"{name}.png")
            context.close()
    print("demo: piece by piece, kept over a reload, in two tabs, deleted; for keyboards, in both schemes, on a small screen")


def keyboard(page):
    """Opens, goes round and closes without a mouse."""
    page.click("tollgate-chat [part=close]")
    launcher = page.locator("tollgate-chat .launcher")
    assert launcher.get_attribute("aria-expanded") == "false"
    launcher.focus()
    page.keyboard.press("Enter")
    assert focused(page) == "input", focused(page)
    order = []
    page.keyboard.press("Shift+Tab")
    for _ in range(3):
        order.append(focused(page))
        page.keyboard.press("Shift+Tab")
    assert order == ["log", "close", "forget"], order
    assert page.locator("tollgate-chat .panel").get_attribute("role") == "dialog"
    page.locator("tollgate-chat textarea").focus()
    page.keyboard.press("Escape")
    assert focused(page) == "launcher" and not page.is_visible("tollgate-chat .panel")
    page.keyboard.press("Enter")
    assert page.locator("tollgate-chat textarea").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def elsewhere(chromium):
    """Pages of other origins, one of them allowed, over a wire that is cut."""
    with Workflow() as workflow, Site("data-color='#ffd400' data-lang=de", STRICT) as shop, Site("data-open=true") as stranger:
        settings = {"CHAT_WEBHOOK_URL": f"http://127.0.0.1:{workflow.port}/webhook/chat", "ALLOWED_ORIGINS": shop.origin, "RATE_LIMIT_SESSION_PER_MINUTE": "4"}
        with Gateway("", **settings) as gateway, Wire(gateway.port) as wire:
            shop.gate = stranger.gate = f"http://127.0.0.1:{wire.port}"
            allowed(chromium, shop, workflow, wire)
            refused(chromium, stranger, workflow)


def allowed(chromium, shop: Site, workflow: Workflow, wire: Wire):
    context = chromium.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    seen = watch(page)
    page.goto(shop.origin)
    page.wait_for_selector("tollgate-chat .launcher")
    asked = seen["hosts"] - {shop.origin.split("/")[2]}
    assert asked == {shop.gate.split("/")[2]} and context.cookies() == [], "nothing is asked for before it is opened"
    page.click("tollgate-chat .launcher")
    say(page, "hello")
    workflow.let(4)
    grown(page, "One two three")
    # The wire breaks; the answer goes on, and the page goes on with it.
    wire.cut()
    page.wait_for_selector("tollgate-chat .note.calm:visible")
    workflow.let(100)
    grown(page, "five: hello.")
    assert last(page) == "One two three four five: hello.", last(page)
    page.wait_for_selector("tollgate-chat .dots", state="detached")
    page.wait_for_selector("tollgate-chat .note:visible", state="detached")
    assert workflow.asked == ["hello"], workflow.asked
    say(page, "markup")
    grown(page, "javascript:alert(1).")
    links = page.locator("tollgate-chat .bubble a")
    assert links.evaluate_all("all => all.map((a) => [a.href, a.rel, a.target])") == [["https://shop.example.com/red", "noopener noreferrer nofollow", "_blank"]]
    assert page.locator("tollgate-chat .bubble pre").inner_text() == "<b>not markup</b>"
    assert page.locator("tollgate-chat img").count() == 0 and page.locator("tollgate-chat .bubble strong").inner_text() == "in red"
    assert page.evaluate(CHECKS) == [], page.evaluate(CHECKS)
    page.screenshot(path=SHOTS / "chat-elsewhere.png")
    page.wait_for_selector("tollgate-chat .dots", state="detached")
    say(page, "long")
    bubble = "[...document.querySelector('tollgate-chat').shadowRoot.querySelectorAll('.assistant .bubble')].at(-1)"
    # Not by `wait_for_function`, which evaluates in the page as soon as it must wait.
    until("the long answer ends", lambda: page.evaluate(f"{bubble}.textContent.endsWith('end.')"), 60)
    assert page.evaluate(f"{bubble}.textContent") == LONG
    # What is written in the chat is no command of the page, and a limit says how long.
    say(page, "third")
    grown(page, "five: third.")
    page.wait_for_selector("tollgate-chat .dots", state="detached")
    say(page, "fourth")
    page.wait_for_selector("tollgate-chat .note:visible")
    assert re.search(r"In \d+ Sekunden", page.locator("tollgate-chat .note:visible").inner_text())
    assert workflow.asked == ["hello", "markup", "long", "third"], workflow.asked
    page.fill("tollgate-chat textarea", "x" * 4001)
    assert page.locator("tollgate-chat textarea").get_attribute("aria-invalid") == "true"
    page.keyboard.press("Enter")
    assert len(page.input_value("tollgate-chat textarea")) == 4001
    # Chromium says of its own accord what became of the cut connection and of 429.
    bad = [line for line in seen["errors"] if "ERR_" not in line and "429" not in line]
    assert bad == [], bad
    context.close()
    print("elsewhere: allowed, under a strict policy, resumed after a cut, as text, limited")


def refused(chromium, stranger: Site, workflow: Workflow):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(stranger.origin)
    page.wait_for_selector("tollgate-chat [part=notice]:visible")
    assert "cannot be reached" in page.locator("tollgate-chat [part=notice]").inner_text()
    assert context.cookies() == [] and len(workflow.asked) == 4
    context.close()
    print("elsewhere: refused on a page that is not allowed")


def main():
    SHOTS.mkdir(parents=True, exist_ok=True)
    if node := shutil.which("node"):
        subprocess.run([node, "--test", str(pathlib.Path(__file__).with_name("widget.test.js"))], check=True)
    with browser() as chromium:
        demo(chromium)
        elsewhere(chromium)


if __name__ == "__main__":
    sys.exit(main())

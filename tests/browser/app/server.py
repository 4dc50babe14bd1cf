"""A web application that believes it lives at the root of its own host.

It uses every way there is of naming a place: the pages in `pages/`, the scripts
and style sheets in `static/`, and the answers made here. It never looks at
X-Forwarded-*, as most applications do not. The standard library is all it needs.

    with Application("name") as app: ...    app.url, app.hits

What was asked for below /probe/ is kept in `hits`, which pages read at /hits:
that is how they know that a browser could follow a URL that only it resolves.
"""

import base64
import email
import email.policy
import gzip
import hashlib
import json
import pathlib
import struct
import threading
import time
import urllib.parse
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = pathlib.Path(__file__).parent
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
WAV = b"RIFF" + struct.pack("<I", 36 + 800) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data" + struct.pack("<I", 800) + b"\x80" * 800
# The one strange file: text that looks like URLs in a type that must not be touched.
OPAQUE = b'{"url": "/static/main.css", "html": "<a href=\\"/x\\">", "css": "url(/y)"}' * 50


def brotli(data: bytes) -> bytes:
    """A brotli stream (RFC 7932) that holds `data` as it is."""
    out, bits, count = bytearray(), 0, 0

    def put(value, width):
        nonlocal bits, count
        bits |= value << count
        count += width
        while count >= 8:
            out.append(bits & 255)
            bits >>= 8
            count -= 8

    put(0, 1)  # a window of 16 bits
    for at in range(0, len(data), 65536):
        part = data[at : at + 65536]
        put(0, 1)  # not the last
        put(0, 2)  # a length of four nibbles
        put(len(part) - 1, 16)
        put(1, 1)  # as it is
        put(0, -count % 8)
        out += part
    put(3, 2)  # the last, empty
    put(0, -count % 8)
    return bytes(out)


def zstd(data: bytes) -> bytes:
    """A zstd frame (RFC 8878) of raw blocks."""
    out = bytearray(struct.pack("<IB", 0xFD2FB528, 0) + bytes([0x38]))  # window: 128 KiB
    parts = [data[at : at + 65536] for at in range(0, len(data), 65536)] or [b""]
    for number, part in enumerate(parts):
        out += struct.pack("<I", len(part) << 3 | (number == len(parts) - 1))[:3] + part
    return bytes(out)


CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli, "zstd": zstd, "identity": lambda data: data}


class Application:
    """Serves on a free port of 127.0.0.1 until it is left."""

    def __init__(self, name: str):
        self.name, self.hits, self.lock = name, [], threading.Lock()
        self.released = threading.Event()
        handler = type("Bound", (Handler,), {"app": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def hit(self, what: str):
        with self.lock:
            self.hits.append(what)


class Handler(BaseHTTPRequestHandler):
    app: Application
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        self.where, self.query = urllib.parse.unquote(url.path), dict(urllib.parse.parse_qsl(url.query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if "chunked" not in self.headers.get("Transfer-Encoding", "") else self.chunks()
        first = self.where.strip("/").split("/")[0]
        {
            "": self.page, "static": self.static, "probe": self.probe, "ws": self.socket, "events": self.events,
            "redirect": self.redirect, "cookies": self.cookies, "encoded": self.encoded, "stream": self.stream,
        }.get(first, self.other)()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET

    def chunks(self) -> bytes:
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    # ------------------------------------------------------------ answers

    def answer(self, body, kind="text/html; charset=utf-8", status=200, fields=()):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        fields = list(fields)
        if kind:
            self.send_header("Content-Type", kind)
        if not any(name == "Cache-Control" for name, _ in fields):
            self.send_header("Cache-Control", "no-store")
        for name, value in fields:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def json(self, value, **more):
        self.answer(json.dumps(value), "application/json", **more)

    def seen(self) -> dict:
        """What arrived, for pages to compare."""
        return {
            "name": self.app.name, "method": self.command, "path": self.where, "query": self.query,
            "length": len(self.body), "sha256": hashlib.sha256(self.body).hexdigest(),
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }

    def file(self, path: pathlib.Path) -> str:
        return path.read_text().replace("@@NAME@@", self.app.name).replace("@@HOST@@", self.headers["Host"])

    def page(self):
        name = self.where.strip("/") or "index"
        fields = [("Link", '</probe/link-header.css>; rel=preload; as=style')] if name == "index" else []
        path = HERE / "pages" / f"{name}.html"
        if not path.is_file():
            return self.answer(f"<h1>Nothing at {self.where}</h1>", status=404)
        self.answer(self.file(path), fields=fields)

    def static(self):
        path = HERE / self.where.lstrip("/")
        if ".." in self.where or not path.is_file():
            return self.answer("none", "text/plain", 404)
        # Copies would show what an earlier place of the same host was given.
        self.answer(self.file(path), TYPES[path.suffix])

    def probe(self):
        self.app.hit(self.where.removeprefix("/probe/"))
        kind = pathlib.PurePath(self.where).suffix
        if kind == ".wav":
            return self.answer(WAV, "audio/wav")
        if kind == ".vtt":
            return self.answer("WEBVTT\n\n00:00.000 --> 00:01.000\nx\n", "text/vtt")
        if kind == ".css":
            return self.answer("/* */", "text/css")
        if kind == ".js":
            return self.answer(f"(self.ran ??= []).push({json.dumps(self.where)})", "text/javascript")
        if kind == ".html":
            return self.answer(f"<title>probe</title><p id=name>{self.app.name}</p>")
        self.answer(SVG, "image/svg+xml")

    def redirect(self):
        status = int(self.where.split("/")[2])
        self.answer("", status=status, fields=[("Location", self.query["to"])])

    def cookies(self):
        fields = []
        if self.where == "/cookies/set":
            host = self.headers["Host"].rsplit(":", 1)[0]
            fields = [("Set-Cookie", value) for value in (
                "plain=1", "rooted=1; Path=/; HttpOnly", "deep=1; Path=/cookies/deep", f"domain=1; Path=/; Domain={host}")]
        self.json(self.seen(), fields=fields)

    def encoded(self):
        """/encoded/<coding>/<kind>: a page or a style sheet in a coding."""
        _, _, coding, kind = self.where.split("/")
        body = {
            "page": f'<!doctype html><title>{coding}</title><img src="/probe/{coding}.svg"><p id=text>{"grüße " * 2000}</p>'
                    f'<script>fetch("/data").then(r => r.json()).then(d => parent.postMessage({{coded: "{coding}", name: d.name}}, "*"))</script>',
            "sheet.css": f'.{coding} {{ background: url(/probe/{coding}-sheet.svg); }}',
        }[kind].encode()
        fields = [] if coding == "identity" else [("Content-Encoding", coding)]
        self.answer(CODINGS[coding](body), "text/css" if kind == "sheet.css" else "text/html; charset=utf-8", fields=fields)

    def stream(self):
        """Two pieces; the second only when /release was asked for."""
        self.app.released.clear()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b"first", b"second"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if piece == b"first" and not self.app.released.wait(10):
                return setattr(self, "close_connection", True)
        self.wfile.write(b"0\r\n\r\n")

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        resumed = self.headers.get("Last-Event-ID", "")
        self.wfile.write(f"id: 7\nevent: hello\ndata: {self.app.name} {resumed}\n\n".encode())
        while self.where == "/events/endless":  # until the other side goes
            time.sleep(0.2)
            self.wfile.write(b"data: tick\n\n")

    def other(self):
        where = self.where
        if where == "/data":
            self.json(self.seen())
        elif where == "/hits":
            self.json(self.app.hits)
        elif where == "/release":
            self.app.released.set()
            self.answer("", status=204)
        elif where.startswith("/landed"):
            self.landed()
        elif where == "/form":
            self.form()
        elif where == "/opaque":
            self.answer(OPAQUE, "application/json")
        elif where == "/attachment":
            self.answer('<a href="/x">', fields=[("Content-Disposition", 'attachment; filename="x.html"')])
        elif where == "/no-transform":
            self.answer('<a href="/x">', fields=[("Cache-Control", "no-transform")])
        elif where == "/empty":
            self.answer("", status=204)
        elif where == "/range":
            self.ranged(bytes(range(256)) * 40)
        elif where == "/etag":
            self.tagged()
        elif where == "/header-refresh":
            self.answer("<title>waiting</title>", fields=[("Refresh", "0; url=/landed/header-refresh")])
        elif where in ("/csp", "/csp-strict-dynamic"):
            more = " 'strict-dynamic'" if where.endswith("dynamic") else ""
            policy = f"default-src 'none'; script-src 'nonce-c2VjcmV0'{more}; connect-src 'self'; img-src 'self'; style-src 'self'; base-uri 'none'; report-uri /probe/violation"
            self.answer(self.file(HERE / "pages/csp.html"), fields=[("Content-Security-Policy", policy)])
        elif where == "/sw.js":
            self.answer(self.file(HERE / "static/service.js"), "text/javascript", fields=[("Service-Worker-Allowed", "/")])
        else:
            self.page()

    def landed(self):
        """Where navigations lead; tells who opened it what it saw."""
        told = json.dumps(self.seen()).replace("<", "\\u003c")
        self.app.hit(self.where)
        self.answer(f'<!doctype html><title>landed</title><p id=name>{self.app.name}</p><script>(window.opener ?? parent).postMessage({{landed: {told}}}, "*")</script>')

    def form(self):
        message = email.message_from_bytes(b"Content-Type: " + self.headers.get("Content-Type", "").encode() + b"\r\n\r\n" + self.body, policy=email.policy.HTTP)
        parts = {}
        if message.is_multipart():
            for part in message.iter_parts():
                value = part.get_payload(decode=True)
                parts[part.get_param("name", header="content-disposition")] = {"file": part.get_filename(), "length": len(value), "sha256": hashlib.sha256(value).hexdigest()}
        else:
            parts = dict(urllib.parse.parse_qsl(self.body.decode())) or self.query
        told = json.dumps({**self.seen(), "parts": parts}).replace("<", "\\u003c")
        self.answer(f'<!doctype html><title>form</title><script>parent.postMessage({{landed: {told}}}, "*")</script>')

    def ranged(self, whole: bytes):
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes="):
            return self.answer(whole, "application/octet-stream", fields=[("Accept-Ranges", "bytes")])
        first, last = (int(text) for text in asked[6:].split("-"))
        self.answer(whole[first : last + 1], "application/octet-stream", 206, [("Content-Range", f"bytes {first}-{last}/{len(whole)}")])

    def tagged(self):
        self.app.hit(f"etag {self.headers.get('If-None-Match')}")
        fields = [("ETag", '"v1"'), ("Cache-Control", "no-cache")]
        if self.headers.get("If-None-Match") == '"v1"':
            return self.answer("", None, 304, fields)
        self.answer('<!doctype html><title>tagged</title><a href="/x">x</a>', fields=fields)

    # ------------------------------------------------------------ WebSocket (RFC 6455)

    def socket(self):
        key = self.headers.get("Sec-WebSocket-Key", "")
        if "websocket" not in self.headers.get("Upgrade", "").lower() or not key:
            return self.answer("not a WebSocket", "text/plain", 426)
        accept = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.close_connection = True
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        if offered := self.headers.get("Sec-WebSocket-Protocol"):
            self.send_header("Sec-WebSocket-Protocol", offered.split(",")[-1].strip())
        self.end_headers()
        self.frame(1, json.dumps(self.seen()).encode())
        message, kind = b"", 0
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return
            opcode, length = head[0] & 15, head[1] & 127
            if length > 125:
                length = int.from_bytes(self.rfile.read(2 if length == 126 else 8), "big")
            mask, data = self.rfile.read(4), self.rfile.read(length)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            if opcode == 8:
                return self.frame(8, data)
            if opcode == 9:
                self.frame(10, data)
            elif opcode < 3:
                kind, message = opcode or kind, message + data
                if head[0] & 128:
                    self.frame(kind, message)
                    message = b""

    def frame(self, opcode: int, data: bytes):
        size = len(data)
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size)
        self.wfile.write(bytes([128 | opcode]) + length + data)

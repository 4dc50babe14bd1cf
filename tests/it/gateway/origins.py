"""Two servers that read paths as Python's own do: `router` as frameworks, which
decode a path and then compare it, and `static`, which serves a folder's files."""

import functools
import http.server
import posixpath
import sys
import urllib.parse

MODE, FOLDER = sys.argv[1:]


class Router(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        path = posixpath.normpath(path)
        first = path.lstrip("/").split("/")[0]
        known = {"protected": "the secret", "public": "for all"}
        status, body = (200, known[first]) if first in known else (404, "nothing")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Static(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


handler = Router if MODE == "router" else functools.partial(Static, directory=FOLDER)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(server.server_address[1], flush=True)
server.serve_forever()

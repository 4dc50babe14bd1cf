"""Speaks the routes of ComfyUI as its `server.py` lays them down, without a model.

Like the original it runs on aiohttp, whose limit of 8,190 bytes for a header
line therefore holds here too. A prompt makes no picture: it is "executed" as a
few previews over the socket, whose bytes follow from its number, and one output.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import json
import pathlib
import socket
import struct
import sys
import threading
import urllib.parse
import uuid

from aiohttp import WSMsgType, web

PREVIEW_IMAGE, JPEG = 1, 1
UPLOAD_MIB = 200
PAGES = pathlib.Path(__file__).parent / "web"
PREVIEW_SIZES = [0, 1, 125, 126, 65_535, 65_536, 300_000, 3_000_000]


def preview(size: int) -> bytes:
    """A frame as clients know it: the event, the kind of picture, the picture."""
    picture = hashlib.shake_256(str(size).encode()).digest(size)
    return struct.pack(">II", PREVIEW_IMAGE, JPEG) + picture


def is_loopback(host: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


def same_place(host: str, origin: str) -> bool:
    """What keeps a web page elsewhere from queueing prompts on one's own machine."""
    asked, named = urllib.parse.urlsplit("//" + host.lower()), urllib.parse.urlsplit(origin.lower())
    if not is_loopback(asked.hostname):
        return True
    if named.port is None or asked.port is None:  # compared without
        left, right = asked.hostname, named.hostname
    else:
        left, right = asked.netloc, named.netloc
    return not left or not right or left == right


@web.middleware
async def only_own_origin(request, handler):
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if request.headers.get("Sec-Fetch-Site") == "cross-site" or (host and origin and not same_place(host, origin)):
        return web.Response(status=403, text="host and origin differ")
    return web.Response() if request.method == "OPTIONS" else await handler(request)


@web.middleware
async def no_cache(request, handler):
    answer = await handler(request)
    if request.path.endswith((".js", ".css")):
        answer.headers.setdefault("Cache-Control", "no-cache")
    return answer


class ComfyUi:
    def __init__(self):
        self.sockets, self.files, self.history, self.number = {}, {}, {}, 0
        self.seen = []
        self.app = web.Application(client_max_size=UPLOAD_MIB << 20, middlewares=[no_cache, only_own_origin])
        routes = [
            web.get("/ws", self.socket), web.get("/prompt", self.queue_info), web.post("/prompt", self.prompt),
            web.get("/queue", self.queue), web.post("/queue", self.done), web.post("/interrupt", self.done), web.post("/free", self.done),
            web.get("/history", self.get_history), web.get("/history/{prompt_id}", self.get_history), web.post("/history", self.forget),
            web.post("/upload/image", self.upload), web.post("/upload/mask", self.upload), web.get("/view", self.view),
            web.get("/object_info", self.object_info), web.get("/object_info/{node}", self.object_info),
            web.get("/system_stats", self.system_stats), web.get("/embeddings", self.embeddings), web.get("/extensions", self.extensions),
            web.get("/models", self.models), web.get("/models/{folder}", self.models),
        ]
        # Every route has a second name; browsers use that one, scripts the first.
        for route in routes:
            self.app.router.add_route(route.method, "/api" + route.path, route.handler)
        self.app.add_routes(routes)
        self.app.add_routes([web.get("/", self.root), web.get("/seen", self.headers_seen), web.static("/", PAGES)])

    async def root(self, _):
        return web.FileResponse(PAGES / "index.html", headers={"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "0"})

    async def headers_seen(self, request):
        """Not one of ComfyUI's: what arrived, for the tests."""
        return web.json_response({name.lower(): value for name, value in request.headers.items()})

    # ------------------------------------------------------------ the socket

    async def socket(self, request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self.sockets[sid] = ws
        try:
            await self.send(sid, "status", {"status": self.exec_info(), "sid": sid})
            async for message in ws:
                if message.type == WSMsgType.ERROR:
                    break
                if message.type == WSMsgType.TEXT:  # newer front ends say what they can do
                    await self.send(sid, "feature_flags", {"supports_preview_metadata": False, "max_upload_size": UPLOAD_MIB << 20})
        finally:
            if self.sockets.get(sid) is ws:
                del self.sockets[sid]
        return ws

    async def send(self, sid, kind, data):
        if (ws := self.sockets.get(sid)) is not None:
            with contextlib.suppress(ConnectionError):
                await ws.send_json({"type": kind, "data": data})

    async def execute(self, sid, prompt_id):
        await self.send(sid, "execution_start", {"prompt_id": prompt_id})
        await self.send(sid, "executing", {"node": "3", "prompt_id": prompt_id})
        for step, size in enumerate(PREVIEW_SIZES, 1):
            await self.send(sid, "progress", {"value": step, "max": len(PREVIEW_SIZES), "prompt_id": prompt_id, "node": "3"})
            if (ws := self.sockets.get(sid)) is not None:
                with contextlib.suppress(ConnectionError):
                    await ws.send_bytes(preview(size))
        name = f"out_{prompt_id}.svg"
        self.files["output", "", name] = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
        output = {"images": [{"filename": name, "subfolder": "", "type": "output"}]}
        self.history[prompt_id] = {"prompt": [0, prompt_id, {}, {}, ["3"]], "outputs": {"3": output}, "status": {"status_str": "success", "completed": True, "messages": []}}
        await self.send(sid, "executed", {"node": "3", "output": output, "prompt_id": prompt_id})
        await self.send(sid, "executing", {"node": None, "prompt_id": prompt_id})

    # ------------------------------------------------------------ the queue

    def exec_info(self):
        return {"exec_info": {"queue_remaining": 0}}

    async def queue_info(self, _):
        return web.json_response(self.exec_info())

    async def prompt(self, request):
        asked = await request.json()
        if not asked.get("prompt"):
            error = {"type": "no_prompt", "message": "No prompt provided", "details": "", "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        self.number += 1
        prompt_id = str(uuid.uuid4())
        asyncio.get_running_loop().create_task(self.execute(asked.get("client_id", ""), prompt_id))
        return web.json_response({"prompt_id": prompt_id, "number": self.number, "node_errors": {}})

    async def queue(self, _):
        return web.json_response({"queue_running": [], "queue_pending": []})

    async def done(self, request):
        await request.read()
        return web.Response()

    async def get_history(self, request):
        wanted = request.match_info.get("prompt_id")
        return web.json_response({name: entry for name, entry in self.history.items() if wanted in (None, name)})

    async def forget(self, request):
        asked = await request.json()
        for name in list(self.history) if asked.get("clear") else asked.get("delete", []):
            self.history.pop(name, None)
        return web.Response()

    # ------------------------------------------------------------ files

    async def upload(self, request):
        post = await request.post()
        image = post.get("image")
        if not isinstance(image, web.FileField) or not image.filename:
            return web.Response(status=400)
        place = post.get("type", "input"), post.get("subfolder", ""), image.filename
        self.files[place] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": place[1], "type": place[0]})

    async def view(self, request):
        name = request.query.get("filename", "")
        if name.startswith("/") or ".." in name:
            return web.Response(status=400)
        found = self.files.get((request.query.get("type", "output"), request.query.get("subfolder", ""), name))
        if found is None:
            return web.Response(status=404)
        kind = "image/svg+xml" if name.endswith(".svg") else "application/octet-stream"
        return web.Response(body=found, content_type=kind, headers={"Content-Disposition": f'filename="{name}"'})

    # ------------------------------------------------------------ what there is

    async def object_info(self, request):
        node = {"input": {"required": {"seed": ["INT", {"default": 0}], "tooltip": ["STRING", {"default": "see /docs/sampler.html"}]}}, "output": ["LATENT"], "name": "KSampler", "category": "sampling", "output_node": False}
        nodes = {"KSampler": node, "SaveImage": {**node, "name": "SaveImage", "output_node": True}}
        wanted = request.match_info.get("node")
        return web.json_response({name: node for name, node in nodes.items() if wanted in (None, name)})

    async def system_stats(self, _):
        system = {"os": "posix", "ram_total": 1 << 34, "ram_free": 1 << 33, "comfyui_version": "stand-in", "python_version": sys.version, "embedded_python": False, "argv": ["main.py"]}
        return web.json_response({"system": system, "devices": [{"name": "cpu", "type": "cpu", "index": None, "vram_total": 1 << 34, "vram_free": 1 << 33}]})

    async def embeddings(self, _):
        return web.json_response(["easynegative"])

    async def extensions(self, _):
        return web.json_response(["/extensions/core/own.js", "/extensions/other/rooted.js"])

    async def models(self, request):
        return web.json_response(["model.safetensors"] if request.match_info.get("folder") else ["checkpoints", "loras"])


class Server:
    """The stand-in on a free port of 127.0.0.1, in a thread of its own."""

    def __enter__(self):
        started = threading.Event()

        def serve():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
            self.runner = web.AppRunner(ComfyUi().app, access_log=None)
            self.loop.run_until_complete(self.runner.setup())
            site = web.TCPSite(self.runner, "127.0.0.1", 0)
            self.loop.run_until_complete(site.start())
            self.url = "http://127.0.0.1:%d" % self.runner.addresses[0][1]
            started.set()
            self.loop.run_forever()
            self.loop.run_until_complete(self.runner.cleanup())
            self.loop.close()

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        started.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


if __name__ == "__main__":
    web.run_app(ComfyUi().app, host="127.0.0.1", port=8188)

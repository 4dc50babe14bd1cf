"""ComfyUI's preset before the stand-in: for programs with a key, and in Chromium.

    drive_comfyui.py [--direct]
"""

import asyncio
import concurrent.futures
import hashlib
import io
import json
import sys

import aiohttp
from comfyui.server import PREVIEW_SIZES, Server, preview
from rig import Gateway, browser, sign_in

UPLOAD = 120 << 20
PREVIEWS = [preview(size) for size in PREVIEW_SIZES]


async def previews_arrive(session, url, origin):
    """Byte for byte, in their order, as frames of their own."""
    headers = {"Origin": origin} if origin else {}
    async with session.ws_connect(f"{url}/ws?clientId=program", max_msg_size=0, headers=headers) as ws:
        status = json.loads((await ws.receive(10)).data)
        assert status["data"]["sid"] == "program", status
        async with session.post(f"{url}/prompt", json={"client_id": "program", "prompt": {"3": {}}}) as queued:
            prompt_id = (await queued.json())["prompt_id"]
        found = []
        while True:
            message = await ws.receive(10)
            if message.type == aiohttp.WSMsgType.BINARY:
                found.append(message.data)
            elif message.type == aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "executed":
                break
            else:
                assert message.type == aiohttp.WSMsgType.TEXT, message
        assert found == PREVIEWS, [len(frame) for frame in found]
    async with session.get(f"{url}/history/{prompt_id}") as history:
        image = (await history.json())[prompt_id]["outputs"]["3"]["images"][0]
    async with session.get(f"{url}/api/view", params=image) as picture:
        assert picture.status == 200 and (await picture.read()).startswith(b"<svg"), picture


async def large_uploads_arrive(session, url):
    data = hashlib.shake_256(b"upload").digest(1 << 20) * (UPLOAD >> 20)
    for name in ("a b.png", "grüße.png"):
        form = aiohttp.FormData()
        form.add_field("image", io.BytesIO(data), filename=name)
        form.add_field("subfolder", "models")
        async with session.post(f"{url}/upload/image", data=form) as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            stored = await answer.json()
        async with session.get(f"{url}/view", params={"filename": stored["name"], "subfolder": "models", "type": "input"}) as back:
            digest = hashlib.sha256()
            async for piece in back.content.iter_chunked(1 << 16):
                digest.update(piece)
        assert digest.digest() == hashlib.sha256(data).digest(), name


async def origins(session, url, origin):
    """Ours is theirs; a foreign one stays a foreign one; none is fine."""
    for sent, expected in [(None, 200), (origin, 200), ("https://evil.example", 403)]:
        async with session.post(f"{url}/queue", json={}, headers={"Origin": sent} if sent else {}) as answer:
            assert answer.status == expected, (sent, answer.status)
    try:
        async with session.ws_connect(f"{url}/ws", headers={"Origin": "https://evil.example"}):
            raise AssertionError("a foreign page may open the socket")
    except aiohttp.WSServerHandshakeError as error:
        assert error.status == 403, error


async def cookie_jars(session, url, direct):
    """What other applications of the host left in the jar must not lock anybody out."""
    for size in (1_000, 8_000, 20_000):
        jar = "; ".join(["own=1"] + [f"app{at}={'x' * 490}" for at in range(size // 500)])
        async with session.get(f"{url}/seen", headers={"Cookie": jar}) as answer:
            expected = 400 if direct and size > 8_190 else 200
            assert answer.status == expected, (size, answer.status)
            if expected == 200:
                cookie = (await answer.json())["cookie"]
                assert cookie.startswith("own=1; ") and len(cookie) <= 8_190, len(cookie)
                assert size > 8_190 or cookie == jar


async def everything_else(session, url):
    for path, key in [("/system_stats", "system"), ("/object_info", "KSampler"), ("/queue", "queue_running"), ("/prompt", "exec_info"), ("/api/object_info/SaveImage", "SaveImage")]:
        async with session.get(url + path) as answer:
            assert key in await answer.json(), path
    async with session.post(f"{url}/prompt", json={}) as answer:
        assert answer.status == 400 and (await answer.json())["node_errors"] == {}
    async with session.post(f"{url}/history", json={"clear": True}) as answer:
        assert answer.status == 200


def programs(*arguments):
    """In a thread, because the browser's driver keeps a loop in this one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, program(*arguments)).result()


async def program(url, origin, headers, direct=False):
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=120)) as session:
        for check in [previews_arrive(session, url, None), previews_arrive(session, url, origin), origins(session, url, origin),
                      cookie_jars(session, url, direct), everything_else(session, url), large_uploads_arrive(session, url)]:
            name = check.__name__
            await check
            print(f"  {name}: ok")


def in_browser(page, url):
    page.wait_for_selector("html[data-done=yes]", state="attached", timeout=60_000)
    found = json.loads(page.text_content("#state"))
    previews = [[1, 1, len(frame) - 8, hashlib.sha256(frame).hexdigest()] for frame in PREVIEWS]
    expected = {"extensions": ["own", "rooted"], "nodes": ["KSampler", "SaveImage"], "tooltip": "see /docs/sampler.html", "stats": "stand-in",
                "sid": "page", "uploaded": "page.png", "prompt": 200, "previews": previews, "shown": 8}
    assert found == expected, found
    print(f"  in the browser at {url}: ok")


def main():
    with Server() as comfyui, browser() as chromium:
        if "--direct" in sys.argv:
            programs(comfyui.url, comfyui.url, {}, True)
            page = chromium.new_page()
            page.goto(comfyui.url + "/")
            return in_browser(page, comfyui.url)
        tables = [f"[[upstreams]]\nname = '{name}'\nmount = '{mount}'\npreset = 'comfyui'\nurl = '{comfyui.url}'\n" for name, mount in [("root", "/"), ("prefix", "/comfy"), ("host", "comfy.localhost")]]
        with Gateway("".join(tables)) as gateway:
            local = f"http://comfy.localhost:{gateway.port}"
            for place, origin in [(gateway.url, gateway.url), (gateway.url + "/comfy", gateway.url), (local, local)]:
                print(place)
                if origin != local:  # programs do not know that name
                    programs(place, origin, {"X-API-Key": gateway.key})
                context = chromium.new_context()
                page = context.new_page()
                sign_in(page, place + "/")
                in_browser(page, place)
                context.close()


main()

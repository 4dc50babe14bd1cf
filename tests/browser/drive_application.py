"""The test application in Chromium: at the root, on a host name, under a prefix, and
there over https, behind nginx.

    drive_application.py [--direct] [--only PART]

`--direct` asks the application itself, without a gateway: what fails there is a
fault of the check. `--only` runs the checks whose name contains PART.
"""

import argparse
import contextlib
import sys
import time

from app.server import Application
from rig import Gateway, Https, browser, sign_in, sign_out

# Where a check is known not to hold, and why.
EXPECTED = {}


def check(page, url: str, place: str) -> int:
    """The number of checks that did not come out as expected."""
    page.wait_for_selector("html[data-done=yes]", state="attached", timeout=240_000)
    rows = page.eval_on_selector_all("#results tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    bad = 0
    for name, verdict, detail in rows:
        expected = EXPECTED.get((place, name))
        if (verdict == "ok") == (expected is None):
            continue
        bad += 1
        print(f"  {place}: {name}: {detail or 'passes, though it is expected to fail'}")
    print(f"{place}: {len(rows) - bad} of {len(rows)} checks as expected ({url})")
    return bad + (not rows)


def watch(page, console: list):
    page.on("pageerror", lambda error: console.append(str(error)))


def live_ends(context, origin: str, base: str, sign_out_path: str, place: str):
    """What another tab has open ends with the logout."""
    tab = context.new_page()
    tab.goto(base + "/live")
    tab.wait_for_function("document.querySelector('#socket').textContent === 'open' && document.querySelector('#events').textContent === 'open'")
    page = context.new_page()
    sign_out(page, origin, sign_out_path)
    started = time.monotonic()
    tab.wait_for_function("document.querySelector('#socket').textContent.startsWith('closed') && /^(ended|closed)/.test(document.querySelector('#events').textContent)", timeout=5000)
    took = time.monotonic() - started
    told = [tab.text_content("#socket"), tab.text_content("#events")]
    print(f"{place}: {took:.2f} s after the logout: socket {told[0]}, events {told[1]}")
    assert told == ["closed 1008", "ended revoked"], told
    assert took < 2, took
    page.goto(base + "/landed/after")
    assert page.evaluate("location.pathname").endswith("/login"), page.url


def check_cookie(context, origin: str):
    """The login is a cookie that no script, no other site and no plain http gets."""
    ours = [cookie for cookie in context.cookies() if "tollgate" in cookie["name"]]
    secure = origin.startswith("https:")
    names = [cookie["name"] for cookie in ours if not cookie["name"].endswith("form")]
    assert names == ["__Host-tollgate-sid" if secure else "tollgate_sid"], names
    for cookie in ours:
        told = {name: cookie[name] for name in ("domain", "path", "secure", "httpOnly", "sameSite")}
        # A domain without a dot in front: of this host alone.
        host = origin.split("//")[1].split(":")[0]
        assert told == {"domain": host, "path": "/", "secure": secure, "httpOnly": True, "sameSite": "Lax"}, cookie


def places(gateway: Gateway, https):
    local = f"http://app.localhost:{gateway.port}"
    plain = [("root", gateway.url, "", "/logout"), ("host", local, "", "/.tollgate/logout"), ("prefix", gateway.url, "/inner/app", "/logout")]
    return plain + ([("https", https.url, "/inner/tls", "/logout")] if https else [])


def https_before(gateway: Gateway):
    if Https.is_here():
        return Https(gateway)
    print("not tested over https: nginx and openssl are not both installed (apt-get install nginx openssl)")
    return contextlib.nullcontext()


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--direct", action="store_true")
    options.add_argument("--place", default="")
    options.add_argument("--only", default="")
    options = options.parse_args()
    query = f"/?only={options.only}" if options.only else "/?x=1&y=%C3%BC"
    bad = 0
    if options.direct:
        with Application("direct") as app, browser() as chromium:
            page = chromium.new_page()
            page.goto(app.url + query)
            return check(page, app.url, "direct")
    with Application("root") as root, Application("host") as host, Application("prefix") as prefix, Application("https") as tls:
        mounts = [("/", root), ("app.localhost", host), ("/inner/app", prefix), ("/inner/tls", tls)]
        tables = [f"[[upstreams]]\nname = '{app.name}'\nmount = '{mount}'\nurl = '{app.url}'\nwebsocket.per_credential = 50\n" for mount, app in mounts]
        proxies = {"SERVER_TRUSTED_PROXIES": "127.0.0.1/32"}
        with Gateway("".join(tables), **proxies) as gateway, https_before(gateway) as https, browser(https.trusted if https else "") as chromium:
            for place, origin, path, sign_out_path in places(gateway, https):
                if options.place not in place:
                    continue
                context = chromium.new_context()
                page, console = context.new_page(), []
                watch(page, console)
                sign_in(page, origin + path + query)
                check_cookie(context, origin)
                bad += check(page, origin + path, place)
                for line in console:
                    print(f"  {place}: an error in the page: {line}")
                if not options.only:
                    live_ends(context, origin, origin + path, sign_out_path, place)
                context.close()
    return bad


if __name__ == "__main__":
    sys.exit(1 if main() else 0)

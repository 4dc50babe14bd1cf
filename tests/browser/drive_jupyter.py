"""JupyterLab under a path prefix: open a notebook, run a cell, see its output.

    drive_jupyter.py [--direct] [--place PLACE]

In three places: `unaware` under a prefix that Jupyter is not told of, `told`
under one that it has as its `base_url` and that is passed on, and `host`, on a
host name of its own.
"""

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
import urllib.request

from playwright.sync_api import TimeoutError
from rig import Gateway, Process, browser, free_port, sign_in, until

CODE = 'import os; print(os.path.join("out", "of", "the", "kernel"), 6 * 7)'
OUTPUT = "out/of/the/kernel 42"


class Jupyter(Process):
    """JupyterLab without a login of its own: the gateway has one."""

    def __init__(self, folder: str, name: str, base: str):
        self.port, self.base = free_port(), base
        self.url = f"http://127.0.0.1:{self.port}"
        work = pathlib.Path(folder) / name
        work.mkdir()
        command = [str(pathlib.Path(sys.executable).parent / "jupyter-lab"), "--no-browser", "--ip=127.0.0.1", f"--port={self.port}", f"--ServerApp.base_url={base}", f"--ServerApp.root_dir={work}",
                   "--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        if os.geteuid() == 0:
            command.append("--allow-root")
        super().__init__(command, str(work), PYTHONDONTWRITEBYTECODE="1", JUPYTER_PLATFORM_DIRS="1")

    def __enter__(self):
        until("JupyterLab answers", lambda: urllib.request.urlopen(f"{self.url}{self.base}api", timeout=5), 60)
        return self


def run_until_output(page):
    """What is run in the moment before the kernel's socket is ready is dropped by
    JupyterLab, also without a gateway; a person would run it again."""
    for attempt in range(4):
        page.click(".jp-Notebook .jp-Cell .cm-content >> nth=0")
        page.keyboard.press("Control+Enter")
        try:
            page.wait_for_selector(f".jp-OutputArea-output:has-text('{OUTPUT}')", timeout=10_000)
            return
        except TimeoutError:
            if attempt == 3:
                raise


def use(page, url: str):
    """A new notebook, a cell, its output, and all of it again after a reload."""
    failed = []
    page.on("requestfailed", lambda request: failed.append(f"{request.method} {request.url}: {request.failure}"))
    page.on("response", lambda answer: answer.status >= 400 and failed.append(f"{answer.request.method} {answer.url}: {answer.status}"))
    page.on("console", lambda line: line.type == "error" and failed.append(line.text))
    try:
        page.wait_for_selector(".jp-LauncherCard[data-category=Notebook]", timeout=60_000)
        page.click(".jp-LauncherCard[data-category=Notebook]")
        page.wait_for_selector(".jp-Notebook .jp-Cell .cm-content", timeout=30_000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
        page.click(".jp-Notebook .jp-Cell .cm-content")
        page.keyboard.insert_text(CODE)
        run_until_output(page)
        page.keyboard.press("Control+s")
        page.click(".jp-Dialog button.jp-mod-accept")  # it asks for a name the first time
        page.wait_for_selector(".jp-Dialog", state="detached")
        page.wait_for_selector(".jp-mod-dirty", state="detached")
        page.wait_for_selector(".jp-DirListing-item[data-file-type=notebook]", timeout=10_000)
        page.wait_for_function("location.pathname.endsWith('/tree/Untitled.ipynb')")
        page.reload()
        page.wait_for_selector(f".jp-OutputArea-output:has-text('{OUTPUT}')", timeout=60_000)
    except Exception:
        print("\n".join(failed[:30]), file=sys.stderr)
        if shot := os.environ.get("SCREENSHOT"):
            page.screenshot(path=shot)
        raise
    print(f"{url}: the cell's output is there, also after a reload")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--direct", action="store_true")
    options.add_argument("--place", default="")
    options = options.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-jupyter."))
        # One for each place, because a second window finds what the first has open.
        bases = {"unaware": "/", "host": "/", "told": "/told/"}
        jupyters = {name: stack.enter_context(Jupyter(folder, name, base)) for name, base in bases.items() if options.place in name}
        chromium = stack.enter_context(browser())
        if options.direct:
            for jupyter in jupyters.values():
                page = chromium.new_page()
                page.goto(f"{jupyter.url}{jupyter.base}lab")
                use(page, page.url)
            return
        mounts = {"unaware": "mount = '/unaware'", "host": "mount = 'lab.localhost'", "told": "mount = '/told'\nstrip_prefix = false"}
        tables = [f"[[upstreams]]\nname = '{name}'\npreset = 'jupyter'\nurl = '{jupyter.url}'\n{mounts[name]}\n" for name, jupyter in jupyters.items()]
        gateway = stack.enter_context(Gateway("".join(tables)))
        places = {"unaware": gateway.url + "/unaware/lab", "host": f"http://lab.localhost:{gateway.port}/lab", "told": gateway.url + "/told/lab"}
        for name in jupyters:
            context = chromium.new_context()
            page = context.new_page()
            sign_in(page, places[name])
            use(page, places[name])
            context.close()


main()

"""JupyterLab under a path prefix: open a notebook, run a cell, see its output.

    drive_jupyter.py [--direct] [--place PLACE]

In three places: `unaware` under a prefix that Jupyter is not told of, `told`
under one that it has as its `base_url` and that is passed on, and `host`, on a
host name of its own.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import urllib.request

from rig import Gateway, Process, browser, free_port, sign_in, until

CODE = 'import os; print(os.path.join("out", "of", "the", "kernel"), 6 * 7)'
OUTPUT = "out/of/the/kernel 42"


class Jupyter(Process):
    """JupyterLab without a login of its own: the gateway has one."""

    def __init__(self, folder: str, base: str):
        self.port, self.base = free_port(), base
        self.url = f"http://127.0.0.1:{self.port}"
        work = pathlib.Path(folder) / (base.strip("/") or "root")
        work.mkdir()
        command = [str(pathlib.Path(sys.executable).parent / "jupyter-lab"), "--no-browser", "--ip=127.0.0.1", f"--port={self.port}", f"--ServerApp.base_url={base}", f"--ServerApp.root_dir={work}",
                   "--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        if os.geteuid() == 0:
            command.append("--allow-root")
        super().__init__(command, str(work), PYTHONDONTWRITEBYTECODE="1", JUPYTER_PLATFORM_DIRS="1")

    def __enter__(self):
        until("JupyterLab answers", lambda: urllib.request.urlopen(f"{self.url}{self.base}api", timeout=5), 60)
        return self


def use(page, url: str):
    """A new notebook, a cell, its output, and the notebook saved."""
    failed = []
    page.on("requestfailed", lambda request: failed.append(f"{request.method} {request.url}: {request.failure}"))
    page.on("response", lambda answer: answer.status >= 400 and failed.append(f"{answer.request.method} {answer.url}: {answer.status}"))
    page.on("console", lambda line: line.type == "error" and failed.append(line.text))
    try:
        page.wait_for_selector(".jp-LauncherCard[data-category=Notebook]", timeout=60_000)
        page.click(".jp-LauncherCard[data-category=Notebook]")
        page.wait_for_selector(".jp-Notebook .jp-Cell .cm-content", timeout=30_000)
        # What is run before the kernel answers is not run.
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
        page.click(".jp-Notebook .jp-Cell .cm-content")
        page.keyboard.insert_text(CODE)
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector(f".jp-OutputArea-output:has-text('{OUTPUT}')", timeout=60_000)
        page.keyboard.press("Control+s")
        page.wait_for_selector(".jp-DirListing-item[data-file-type=notebook]", timeout=10_000)
    except Exception:
        print("\n".join(failed[:30]), file=sys.stderr)
        if shot := os.environ.get("SCREENSHOT"):
            page.screenshot(path=shot)
        raise
    print(f"{url}: the cell's output is there")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--direct", action="store_true")
    options.add_argument("--place", default="")
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollgate-jupyter.") as folder, Jupyter(folder, "/") as plain, Jupyter(folder, "/told/") as told, browser() as chromium:
        if options.direct:
            for jupyter in (plain, told):
                page = chromium.new_page()
                page.goto(f"{jupyter.url}{jupyter.base}lab")
                use(page, page.url)
            return
        upstreams = f"""
            [[upstreams]]
            name = "unaware"
            mount = "/unaware"
            preset = "jupyter"
            url = "{plain.url}"

            [[upstreams]]
            name = "host"
            mount = "lab.localhost"
            preset = "jupyter"
            url = "{plain.url}"

            [[upstreams]]
            name = "told"
            mount = "/told"
            preset = "jupyter"
            url = "{told.url}"
            strip_prefix = false
            rewrite = false
        """
        with Gateway(upstreams) as gateway:
            places = {"unaware": gateway.url + "/unaware/lab", "host": f"http://lab.localhost:{gateway.port}/lab", "told": gateway.url + "/told/lab"}
            for place, url in places.items():
                if options.place in place:
                    context = chromium.new_context()
                    page = context.new_page()
                    sign_in(page, url)
                    use(page, url)
                    context.close()


main()

"""Drive a real JupyterLab in headless Chromium; used by the tests and by the programs in benchmarks/."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
START_S = 60.0
CELL_MS = 90_000

_SETTINGS = {
    # A saved answer, or JupyterLab asks each new user whether it may fetch news.
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    # The worst case for the size of a notebook: the state of all widgets is saved with it.
    "@jupyter-widgets/jupyterlab-manager/plugin.jupyterlab-settings": {"saveState": True},
}


def chromium() -> str | None:
    """Find the system's Chromium; a browser is never downloaded."""
    for name in (CHROMIUM, "chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lab:
    """A JupyterLab server on a free port, in a process group of its own.

    Parameters
    ----------
    folder : Path
        Where it keeps its notebooks and all of its settings.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "notebooks"
        self.root.mkdir(parents=True)
        self.token = "amatch"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        state = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        state |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "lab-settings")}
        state |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "lab-workspaces")}
        for name, values in _SETTINGS.items():
            path = folder / "lab-settings" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        state |= {"AMATCH_CACHE": str(folder / "cache")}  # embeddings: not those of the user
        self.environment = {**os.environ, **state}
        self._log = (folder / "jupyterlab.log").open("wb")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                f"--ServerApp.port={self.port}",
                "--ServerApp.port_retries=0",
                f"--ServerApp.root_dir={self.root}",
                f"--IdentityProvider.token={self.token}",
                "--LabApp.expose_app_in_browser=True",
                "--JupyterNotebookApp.expose_app_in_browser=True",
                "--LabServerApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self.environment,
            start_new_session=True,  # its kernels die with it, and nothing else does
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                self.api("GET", "status")
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    log = Path(self._log.name).read_text(errors="replace")
                    raise RuntimeError(f"JupyterLab did not start:\n{log[-3000:]}") from None
                time.sleep(0.1)
            else:
                return

    def api(self, method: str, path: str) -> Any:
        """Ask the server's REST interface."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def stop_kernels(self) -> None:
        """End all kernels, so that the next test has the machine to itself."""
        for session in self.api("GET", "sessions"):
            with contextlib.suppress(OSError):
                self.api("DELETE", f"sessions/{session['id']}")

    def write(self, name: str, cells: list[str]) -> Path:
        """Write a notebook of code cells."""
        content = {
            "cells": [
                {
                    "cell_type": "code",
                    "id": f"cell-{k}",
                    "execution_count": None,
                    "metadata": {},
                    "outputs": [],
                    "source": source,
                }
                for k, source in enumerate(cells)
            ],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        path = self.root / name
        path.write_text(json.dumps(content))
        return path

    def close(self) -> None:
        """Kill the server and all its kernels."""
        with contextlib.suppress(OSError):
            self.stop_kernels()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


class Voila:
    """A Voila server beside a JupyterLab, which runs its notebooks as applications.

    Parameters
    ----------
    lab : Lab
        Whose notebooks are shown.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._log = (lab.root.parent / "voila.log").open("wb")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "voila", "--no-browser", str(lab.root)),
                f"--port={self.url.rpartition(':')[2]}",
                "--Voila.ip=127.0.0.1",
                "--show_tracebacks=True",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=lab.environment,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/voila/tree", timeout=10).close()
            except urllib.error.HTTPError:
                return  # it answers
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    log = Path(self._log.name).read_text(errors="replace")
                    raise RuntimeError(f"Voila did not start:\n{log[-3000:]}") from None
                time.sleep(0.1)
            else:
                return

    def show(self, name: str, cells: list[str]) -> str:
        """Write a notebook, and give the address at which Voila runs it."""
        self.lab.write(name, cells)
        return f"{self.url}/voila/render/{name}"

    def close(self) -> None:
        """Kill the server and all its kernels."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


class Notebook:
    """One notebook in one browser page.

    Parameters
    ----------
    lab : Lab
        The server.
    page : playwright Page
        An empty page.
    cells : list of str
        The notebook's cells.
    theme : str
        "light" or "dark".
    name : str
        The notebook's name, by default a number.
    url : str
        Another address of the server, e.g. that of a slow connection to it.
    """

    def __init__(
        self, lab: Lab, page: Any, cells: list[str], *, theme: str = "light", name: str = "", url: str = ""
    ) -> None:
        self.lab = lab
        self.page = page
        self.url = url or lab.url
        self.name = f"{name or time.monotonic_ns()}.ipynb"
        self.path = lab.write(self.name, cells)
        self.open()
        self.theme(theme)

    def open(self) -> None:
        """Open the notebook in JupyterLab and wait for its kernel."""
        self.page.goto(f"{self.url}/lab/tree/{self.name}?token={self.lab.token}&reset")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-Cell", timeout=CELL_MS)
        self.page.evaluate(
            """async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                window.jupyterapp.shell.collapseLeft();
                await panel.context.ready;
                await panel.sessionContext.ready;
                await panel.sessionContext.session.kernel.info;
            }"""
        )

    def theme(self, name: str) -> None:
        """Switch JupyterLab to its "light" or "dark" theme."""
        self.page.evaluate(
            """async (theme) => {
                const app = window.jupyterapp;
                await app.commands.execute('apputils:change-theme', { theme });
            }""",
            f"JupyterLab {name.capitalize()}",
        )
        flag = "true" if name == "light" else "false"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{flag}"]', state="attached")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell; `wait` until it has ended."""
        self.page.evaluate(
            """async ([index, wait]) => {
                const panel = window.jupyterapp.shell.currentWidget;
                panel.content.activeCellIndex = index;
                panel.content.deselectAll();
                const done = window.jupyterapp.commands.execute('notebook:run-cell');
                if (wait) await done;
            }""",
            [index, wait],
        )

    def output(self, index: int) -> str:
        """Give the text a cell has printed, errors included."""
        return self.page.evaluate(
            """(index) => {
                const cell = window.jupyterapp.shell.currentWidget.content.widgets[index];
                return cell.model.outputs.toJSON().map(o =>
                    o.text || (o.traceback || []).join('\\n') || ((o.data || {})['text/plain'] || '')
                ).flat().join('');
            }""",
            index,
        )

    def ask(self, code: str) -> str:
        """Run a piece of code in the kernel, outside all cells, and give what it prints."""
        return self.page.evaluate(
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const future = kernel.requestExecute({ code, store_history: false });
                let text = '';
                future.onIOPub = (msg) => {
                    if (msg.header.msg_type === 'stream') text += msg.content.text;
                    if (msg.header.msg_type === 'error') text += msg.content.traceback.join('\\n');
                };
                await future.done;
                return text;
            }""",
            code,
        ).strip()

    def cells(self) -> list[list[str]]:
        """Give the type and the source of each cell, to see that no key has leaked."""
        return self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.widgets.map(
                c => [c.model.type, c.model.sharedModel.getSource()])"""
        )

    def wait_for_restart(self) -> None:
        """Wait until the server has started a killed kernel again, and it answers."""
        self.page.locator(".jp-Dialog .jp-mod-accept").click()  # JupyterLab tells that it died
        self.page.evaluate(
            """async () => {
                const { session } = window.jupyterapp.shell.currentWidget.sessionContext;
                const { kernel } = session;
                const is_up = () => kernel.connectionStatus === 'connected' && kernel.status === 'idle';
                if (!is_up()) await new Promise((done) => {
                    const look = () => is_up() && done();
                    session.statusChanged.connect(look);
                    session.connectionStatusChanged.connect(look);
                });
            }"""
        )

    def save(self) -> None:
        """Save the notebook."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

"""A JupyterLab of the test's own, which neither sees nor leaves anything of anybody's."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0

#: A page that a test can drive, and that asks no other machine.
LAB_OPTIONS = [
    "--LabApp.expose_app_in_browser=True",
    "--JupyterNotebookApp.expose_app_in_browser=True",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
]
_SETTINGS = {
    # Cells that are scrolled away stay in the page, where a test finds them.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # As much as can be saved: what must not be in a file is looked for there.
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}
# The environment names a proxy where there is one; it must not be asked for this machine.
ask = build_opener(ProxyHandler({})).open


class LabServer:
    """A running JupyterLab.

    Parameters
    ----------
    folder : Path
        For everything it writes; notebooks lie and run in its folder ``work``.
    """

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self._log = folder / "server.log"
        self._token = secrets.token_hex(16)
        self.address = f"http://127.0.0.1:{free_port()}"
        environment = isolated_environment(folder)
        with self._log.open("wb") as log:
            self._process = Popen(
                self._command(),
                cwd=self.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.address.rpartition(':')[2]}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.work}",
            f"--IdentityProvider.token={self._token}",
            *LAB_OPTIONS,
        ]

    @property
    def lab_address(self) -> str:
        """What a browser opens: the application, without a layout of an earlier time."""
        return f"{self.address_of('lab')}&reset"

    def address_of(self, path: str) -> str:
        """What a browser opens for another application, e.g. ``notebooks/sweep.ipynb``."""
        return f"{self.address}/{path}?token={self._token}"

    def wait_until_up(self) -> None:
        """Return as soon as it answers."""
        wait_for_answer(lambda: self._request("/api/status"), self._process, self._log)

    def _request(self, path: str, method: str = "GET") -> None:
        headers = {"Authorization": f"token {self._token}"}
        request = Request(f"{self.address}{path}", method=method, headers=headers)
        with ask(request, timeout=10):
            pass

    def stop(self) -> None:
        """End it and its kernels, by asking and, where that is in vain, by force."""
        try:
            if self._process.poll() is None:
                self._request("/api/shutdown", method="POST")
            self._process.wait(_STOP_TIMEOUT_S)
        except (URLError, ConnectionError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def running_lab(folder: Path) -> Iterator[LabServer]:
    """A JupyterLab that is up, and down afterwards."""
    server = LabServer(folder)
    try:
        server.wait_until_up()
        yield server
    finally:
        server.stop()


def wait_for_answer(request: Callable[[], object], process: Popen[bytes], log: Path) -> None:
    """Ask a server until it answers.

    Raises
    ------
    RuntimeError
        When its process ended or does not answer in time; carries its log.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            request()
            return
        except (URLError, ConnectionError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} is not up:\n{log.read_text()}") from error
        time.sleep(0.05)


def isolated_environment(folder: Path) -> dict[str, str]:
    """An environment in which Jupyter reads and writes below one folder alone."""
    places = {
        "HOME": "home",
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    for name in places.values():
        (folder / name).mkdir(mode=0o700)
    for name, values in _SETTINGS.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    # A host whose kernel was ended by a failing test follows it soon.
    ours = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "SCALABLE_LINGER_S": "2"}
    return kept | ours | {name: str(folder / place) for name, place in places.items()}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

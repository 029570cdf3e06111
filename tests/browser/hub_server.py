"""A JupyterHub of the test's own, with two users and the proxy that stands before it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab_server import LAB_OPTIONS, ask, free_port, isolated_environment, wait_for_answer
from leftovers import processes_below
from playwright.sync_api import Browser, StorageState, expect
from quiet_page import QuietPage

PROXY: Final = Path(sys.prefix) / "node" / "node_modules" / ".bin" / "configurable-http-proxy"
_STOP_TIMEOUT_S: Final = 30.0

#: What `isolated_environment` sets for who starts the hub, for each user instead.
_OF_A_USER: Final = ("JUPYTERLAB_SETTINGS_DIR", "NO_PROXY", "no_proxy", "SCALABLE_LINGER_S")
_CONFIG: Final = """
c = get_config()
c.JupyterHub.bind_url = {address!r}
c.JupyterHub.hub_bind_url = {hub!r}
c.ConfigurableHTTPProxy.api_url = {api!r}
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = {password!r}
c.Authenticator.allowed_users = {{"ada", "eve"}}
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r}
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = {options!r}
c.Spawner.environment = {environment!r}
"""


@dataclass(frozen=True)
class Lab:
    """The JupyterLab of a user: where it works, and what a browser opens."""

    work: Path
    lab_address: str


class HubServer:
    """A running JupyterHub.

    Its users' servers run as the tests' own user: the other one needs no server to try what
    another user of the machine could, see `intruder`.

    Parameters
    ----------
    folder : Path
        For everything it writes; any user may enter it, as on a cluster.
    """

    def __init__(self, folder: Path) -> None:
        self.homes = folder / "homes"
        for name in ("ada", "eve"):
            (self.homes / name).mkdir(parents=True)
        self.address = f"http://127.0.0.1:{free_port()}"
        self.password = secrets.token_hex(16)
        self._log = folder / "hub.log"
        environment = isolated_environment(folder)
        config = folder / "jupyterhub_config.py"
        config.touch(0o600)
        config.write_text(self._config(environment))
        self._log.touch(0o600)  # it names every page that somebody opened
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "--config", str(config)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _config(self, environment: dict[str, str]) -> str:
        return _CONFIG.format(
            address=self.address,
            hub=f"http://127.0.0.1:{free_port()}",
            api=f"http://127.0.0.1:{free_port()}",
            proxy=str(PROXY),
            password=self.password,
            homes=f"{self.homes}/{{username}}",
            python=sys.executable,
            options=["--allow-root", *LAB_OPTIONS],
            environment={name: environment[name] for name in _OF_A_USER},
        )

    def wait_until_up(self) -> None:
        """Return as soon as it answers."""

        def request() -> None:
            with ask(f"{self.address}/hub/api", timeout=10):
                pass

        wait_for_answer(request, self._process, self._log)

    def lab(self, user: str) -> Lab:
        """The JupyterLab of a user."""
        return Lab(self.homes / user, f"{self.address}/user/{user}/lab?reset")

    def stop(self) -> None:
        """End it, its proxy and the users' servers."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class HubHome(QuietPage):
    """The page of a hub on which a user, who has just logged in, starts and stops a server."""

    def __init__(self, browser: Browser, hub: HubServer, user: str) -> None:
        super().__init__(browser.new_page())
        self._address = f"{hub.address}/hub/home"
        self.page.goto(f"{hub.address}/hub/login?next=%2Fhub%2Fhome")
        self.page.get_by_label("Username").fill(user)
        self.page.get_by_label("Password").fill(hub.password)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("button", name="Logout")).to_be_visible()

    def start_server(self) -> StorageState:
        """Start it, and wait until it is there; returns what the browser then carries."""
        self.page.goto(self._address)
        self.page.get_by_role("button", name="Start My Server").click()
        self.page.wait_for_url("**/user/*/lab*")
        return self.page.context.storage_state()

    def stop_server(self) -> None:
        """Stop it, and wait until it is gone."""
        self.page.goto(self._address)
        self.page.get_by_role("button", name="Stop My Server").click()
        expect(self.page.get_by_role("button", name="Start My Server")).to_be_visible()


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A JupyterHub that is up, and down afterwards with everything that worked in its folder."""
    with tempfile.TemporaryDirectory(prefix="scalable-hub-") as name:
        Path(name).chmod(0o755)
        hub = HubServer(Path(name))
        try:
            hub.wait_until_up()
            yield hub
        finally:
            hub.stop()
            for process in processes_below(Path(name)):
                process.kill()

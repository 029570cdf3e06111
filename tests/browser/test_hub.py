"""Behind a real JupyterHub: a run is seen and survives its server, and others reach nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hub_server import PROXY, HubHome, HubServer, running_hub
from intruder import OTHER_UID, Aim, Loot, attack
from lab_notebook import LabNotebook
from leftovers import processes_below
from playwright.sync_api import Browser, expect
from quiet_page import chromium
from waiting import until

from scalable_nb.paths import RunPaths, list_runs

pytestmark = [
    # The hub, a server, chromium and a session start before the first test.
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not PROXY.exists(), reason="configurable-http-proxy is missing: apt-get install npm"
    ),
]

START, MAP, FAILURES = range(3)
CELLS = [
    "%load_ext scalable_nb\n%scalable start",
    """\
import time
from pathlib import Path

def model(number, wanted):
    while not Path(wanted).exists():
        time.sleep(0.05)
    if number % 4 == 3:
        raise ValueError(f"no data for {number}")
    with Path(f"done-{number}").open("a") as file:
        file.write(".")
    return number**2

futures = client.map(model, range(40), ["by day"] * 20 + ["by night"] * 20, name="sweep")
futures""",
    "%scalable failures",
]
ATTACH, SHOW, RESULTS = range(3)
LATER_CELLS = [
    "%load_ext scalable_nb\n%scalable attach",
    'session.batches["sweep"]',
    'print(sum(client.gather(session.batches["sweep"], errors="skip")))\n%scalable stop',
]
SUCCEEDED = [number for number in range(40) if number % 4 != 3]


@dataclass
class Visit:
    """Ada's notebook behind the hub."""

    hub: HubServer
    browser: Browser
    home: HubHome
    notebook: LabNotebook

    @property
    def work(self) -> Path:
        return self.notebook.file.parent

    @property
    def run(self) -> RunPaths:
        (run,) = list_runs(self.work / ".scalable" / "runs")
        return run

    @property
    def host(self) -> psutil.Process:
        return psutil.Process(json.loads(self.run.session_json.read_bytes())["pid"])

    @property
    def dashboard_path(self) -> str:
        """Where the card says that the dashboard is."""
        link = self.notebook.cell(START).locator('a[href*="/proxy/"]')
        return link.get_attribute("href") or ""

    def done(self) -> int:
        """How many tasks have written that they are done."""
        return len(list(self.work.glob("done-*")))


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    """Ada has logged in and started a session with tasks that wait for a file."""
    with running_hub() as hub, chromium() as browser:
        home = HubHome(browser, hub, "ada")
        carried = home.start_server()
        window = {"width": 1100, "height": 1000}
        notebook = LabNotebook(
            browser, hub.lab("ada"), "work.ipynb", CELLS, storage_state=carried, viewport=window
        )
        notebook.run(START)
        notebook.run(MAP)
        yield Visit(hub, browser, home, notebook)
        notebook.close()


def running(visit: Visit, module: str) -> list[psutil.Process]:
    """Ada's processes of ``python -m module``."""
    found = []
    for process in processes_below(visit.work):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if module in process.cmdline():
                found.append(process)
    return found


def test_a_run_is_seen_at_work(visit: Visit) -> None:
    """Table and explorer come through the hub's proxy and are live, and the dashboard opens."""
    notebook = visit.notebook
    table = notebook.cell(MAP).locator(".scalable-table")
    expect(table.locator(".snb-share")).to_have_text("0 of 40 done")
    expect(table.locator('.snb-count[data-state="running"]')).to_contain_text("2")
    (visit.work / "by day").touch()
    expect(table.locator(".snb-share")).to_have_text("20 of 40 done")

    notebook.run(FAILURES)
    explorer = notebook.cell(FAILURES).locator(".jp-OutputArea")
    expect(explorer).to_contain_text("5 failed attempts of")
    expect(explorer.locator(".js-plotly-plot")).to_be_visible()
    expect(explorer.locator(".widget-select option")).to_contain_text("ValueError")

    with notebook.page.context.expect_page() as opened:
        notebook.cell(START).locator('a[href*="/proxy/"]').click()
    dashboard = opened.value
    expect(dashboard).to_have_title("Dask: Status")
    # Drawn are what arrives through a web socket.
    expect(dashboard.locator("canvas").first).to_be_visible()
    assert dashboard.url.startswith(f"{visit.hub.address}/user/ada/proxy/")
    dashboard.close()
    notebook.save()
    assert visit.dashboard_path.split("/")[-2] not in notebook.file.read_text()
    assert notebook.errors() == []


def test_another_user_of_the_hub_reaches_nothing(visit: Visit) -> None:
    """Who is logged in as somebody else is refused, with every address known; a stranger, too."""
    server = f"{visit.hub.address}/user/ada"
    session = visit.run.session_json.relative_to(visit.work)
    addresses = [
        visit.hub.address + visit.dashboard_path,
        f"{server}/lab",
        f"{server}/files/{session}",
        f"{server}/api/contents/work.ipynb",
        f"{server}/api/kernels",
        f"{visit.hub.address}/hub/api/users/ada",
        f"{visit.hub.address}/hub/api/users/ada/tokens",
    ]
    eve = HubHome(visit.browser, visit.hub, "eve")
    answers = {address: eve.page.request.get(address).status for address in addresses}
    assert set(answers.values()) <= {403, 404}, answers
    shown = eve.page.goto(addresses[0])
    assert shown is not None and shown.status == 403
    eve.page.close()

    stranger = visit.browser.new_page()
    stranger.goto(addresses[0])
    expect(stranger.get_by_role("button", name="Sign in")).to_be_visible()
    stranger.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_reaches_nothing(visit: Visit) -> None:
    """Through loopback, files and processes: no page, no connection, no record and no secret."""
    processes = [visit.host, *visit.host.children(recursive=True)]
    ports = {
        connection.laddr.port
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    (server,) = running(visit, "jupyterhub.singleuser")
    kernels = server.children(recursive=True)
    (connection_file,) = visit.work.glob(".local/share/jupyter/runtime/kernel-*.json")
    secrets = {
        "the token of the server": server.environ()["JUPYTERHUB_API_TOKEN"],
        "the key of the kernel": json.loads(connection_file.read_bytes())["key"],
    }
    aim = Aim(
        folders=[str(visit.hub.homes.parent), "/dev/shm"],
        pids=[process.pid for process in [*processes, server, *kernels]],
        ports=sorted(ports),
        tls=str(visit.run.tls),
        prefix=visit.dashboard_path.split("/")[-2],
        secrets=secrets,
    )
    # With the owner's rights it finds all of it: it looks in the right places.
    owner = attack(aim, os.getuid())
    assert str(visit.run.session_json) in owner.files
    assert {found.partition(" in ")[0] for found in owner.secrets} == {"prefix", *secrets}
    assert any(visit.dashboard_path.split("/")[-3] in page for page in owner.pages)
    assert len(owner.comms) >= 3  # of the scheduler and two workers

    assert attack(aim, OTHER_UID) == Loot(pages=[], comms=[], files=[], secrets=[])


def test_a_run_outlives_the_server(visit: Visit) -> None:
    """The server is stopped, the run goes on; started again, a new notebook joins it by attach."""
    until(lambda: visit.done() == 15)
    assert visit.notebook.complaints == []
    visit.notebook.close()
    visit.home.stop_server()
    host = visit.host
    assert host.is_running()
    until(lambda: not running(visit, "jupyterhub.singleuser"))
    until(lambda: not running(visit, "ipykernel_launcher"))  # it notices that its parent is gone
    assert visit.done() == 15

    carried = visit.home.start_server()
    later = LabNotebook(
        visit.browser, visit.hub.lab("ada"), "later.ipynb", LATER_CELLS, storage_state=carried
    )
    later.run(ATTACH)
    later.run(SHOW)
    table = later.cell(SHOW).locator(".scalable-table")
    expect(table.locator(".snb-share")).to_have_text("20 of 40 done")
    (visit.work / "by night").touch()
    expect(table.locator(".snb-share")).to_have_text("40 of 40 done")
    later.run(RESULTS)
    expect(later.cell(RESULTS)).to_contain_text(str(sum(n**2 for n in SUCCEEDED)))
    assert later.errors() == []
    assert later.complaints == []
    later.close()
    # Each was computed once, whoever looked.
    done = {path.name: path.read_text() for path in visit.work.glob("done-*")}
    assert done == {f"done-{number}": "." for number in SUCCEEDED}
    until(lambda: not host.is_running())

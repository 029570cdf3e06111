"""What another user of the same machine gets hold of, when it tries what Dask and Linux offer.

`attack` runs `main` in a process of its own, which loads its modules, becomes another user and then
reads files, asks for pages and speaks Dask's protocol, with what it found on the way.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from distributed import Security
from distributed.comm import connect

from scalable_nb.dask_adapter.access import load_security

#: A number that no account of the machine has.
OTHER_UID: Final = 64_999
#: Pages of Dask's that say something, and where it tells of others.
_PAGES: Final = (
    *("/", "/status", "/health", "/metrics", "/sitemap.json", "/info/main/workers.html"),
    *("/json/counts.json", "/individual-graph", "/statics/css/base.css"),
)
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True)
class Aim:
    """What belongs to somebody, and what must not be found.

    Attributes
    ----------
    folders : list of str
        Whose files are read.
    pids : list of int
    ports : list of int
        On which these processes listen.
    tls : str
        The folder of the session's certificate.
    prefix : str
        Under which the pages lie.
    secrets : dict of str to str
        Others, by what they are.
    """

    folders: list[str]
    pids: list[int]
    ports: list[int]
    tls: str
    prefix: str
    secrets: dict[str, str]


@dataclass
class Loot:
    """What was got.

    Attributes
    ----------
    pages : list of str
        Addresses that answered with more than a refusal.
    comms : list of str
        Addresses at which Dask's own protocol was spoken.
    files : list of str
        Files below a run folder that could be read.
    secrets : list of str
        What was found, and where.
    """

    pages: list[str] = field(default_factory=list)
    comms: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


def attack(aim: Aim, uid: int) -> Loot:
    """Try everything as another user, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", "import intruder; intruder.main()"],
        input=json.dumps({"uid": uid, **asdict(aim)}),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    return Loot(**json.loads(run.stdout))


def main() -> None:
    """Become the other user and try it; all modules are loaded, wherever they lie."""
    task = json.load(sys.stdin)
    uid = task.pop("uid")
    aim = Aim(**task)
    made_up = Security.temporary()
    if uid != os.getuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    os.chdir("/")
    loot = Loot()
    for path in _files(aim.folders):
        _look_into(path, aim, loot)
    for pid in aim.pids:
        for name in ("environ", "cmdline"):
            _look_into(Path("/proc", str(pid), name), aim, loot)
    knows_prefix = any(found.startswith("prefix ") for found in loot.secrets)
    pages = [f"/{aim.prefix}{page}" for page in _PAGES] if knows_prefix else _PAGES
    loot.pages = [address for port in aim.ports for address in _pages(port, pages)]
    loot.comms = asyncio.run(_comms(aim.ports, _stolen(aim) or made_up))
    print(json.dumps(asdict(loot)))


def _stolen(aim: Aim) -> Security | None:
    """The session's own certificate, for who may read it."""
    try:
        return load_security(Path(aim.tls))
    except OSError:
        return None


def _pages(port: int, pages: Sequence[str]) -> Iterable[str]:
    """Pages of one port that are shown without being told a password."""
    ask = build_opener(ProxyHandler({})).open
    for page in pages:
        address = f"http://127.0.0.1:{port}{page}"
        try:
            with ask(address, timeout=_PATIENCE_S) as answer:
                yield f"{address} -> {answer.url}"
        except HTTPError as error:
            if error.code != 404:
                yield f"{address}: {error.code}"
            error.close()
        except OSError:
            continue  # it speaks something else there


async def _comms(ports: list[int], security: Security) -> list[str]:
    """Addresses that take a connection with no certificate, or with this one."""
    tls = security.get_connection_args("client")
    addresses = [f"{kind}://127.0.0.1:{port}" for port in ports for kind in ("tcp", "tls")]
    answers = await asyncio.gather(*(_identity(address, tls) for address in addresses))
    return [address for address, answer in zip(addresses, answers, strict=True) if answer]


async def _identity(address: str, tls: dict[str, Any]) -> Any:
    """What a Dask server says of itself; None when it says nothing."""
    options = tls if address.startswith("tls") else {}
    try:
        async with asyncio.timeout(_PATIENCE_S):
            comm = await connect(address, **options)
            await comm.write({"op": "identity", "reply": True})
            return await comm.read()
    except (OSError, TimeoutError):
        return None


def _files(folders: list[str]) -> Iterable[Path]:
    for folder in folders:
        for place, _, names in os.walk(folder):
            paths = (Path(place, name) for name in names)
            yield from (path for path in paths if path.is_file())


def _look_into(path: Path, aim: Aim, loot: Loot) -> None:
    try:
        content = path.read_bytes()
    except OSError:
        return
    if ".scalable" in path.parts:
        loot.files.append(str(path))
    secrets = {"prefix": aim.prefix, **aim.secrets}
    found = [name for name, secret in secrets.items() if secret.encode() in content]
    loot.secrets += [f"{name} in {path}" for name in found]

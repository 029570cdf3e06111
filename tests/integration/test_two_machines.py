"""Two machines share kept results: namespaces with a host name and a network of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from waiting import until

from scalable_nb.cache.index import ResultIndex
from scalable_nb.cache.maintenance import cache_info, verify_cache
from scalable_nb.cache.store import ResultStore

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None,
    reason="namespaces take root, unshare and ip: apt-get install util-linux iproute2",
)

#: Calls 0 to 59 in an order of its own, with the index open, while another machine does the same.
MACHINE = """
    import random, socket, sys
    from pathlib import Path
    from counting import mark
    from scalable_nb import cacheable
    from scalable_nb.cache.index import ResultIndex
    from scalable_nb.cache.store import ResultStore

    here, store = Path.cwd(), ResultStore(Path.cwd() / "cache")

    @cacheable(store=store.folder)
    def square(x):
        mark(here, f"{socket.gethostname()}-{x}")
        return x * x

    order = list(range(60))
    random.Random(socket.gethostname()).shuffle(order)
    with ResultIndex(store) as index:
        (here / f"{socket.gethostname()}.ready").touch()
        while len(list(here.glob("*.ready"))) < 2:
            pass
        assert [square(x) for x in order] == [x * x for x in order]
        index.update()
        assert index.total().count <= 60
        (here / f"{socket.gethostname()}.done").touch()
        sys.stdin.read()
"""


def _machine(name: str, folder: Path) -> subprocess.Popen[bytes]:
    inside = f"hostname {name} && ip link set lo up && exec {sys.executable} machine.py"
    return subprocess.Popen(
        ["unshare", "--uts", "--net", "sh", "-c", inside],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
    )


def test_two_machines_share_results_and_never_an_index(tmp_path: Path) -> None:
    """Both compute at once and get right results; neither opens the other's database."""
    (tmp_path / "machine.py").write_text(textwrap.dedent(MACHINE))
    names = ("north", "south")
    machines = {name: _machine(name, tmp_path) for name in names}
    try:
        until(lambda: len(list(tmp_path.glob("*.done"))) == 2, timeout_s=100)
        folder = tmp_path / "cache" / "index"
        for name, machine in machines.items():
            opened = {Path(file.path) for file in psutil.Process(machine.pid).open_files()}
            indices = {
                path.relative_to(folder).parts[0] for path in opened if folder in path.parents
            }
            assert indices == {name}
        store = ResultStore(tmp_path / "cache")
        with ResultIndex(store) as index:  # a third machine, with an index of its own again
            assert index.total().count == 60
    finally:
        for machine in machines.values():
            machine.communicate()
    assert [machine.returncode for machine in machines.values()] == [0, 0]
    assert (cache_info(store).count, verify_cache(store).whole) == (60, 60)
    counted = [sum((tmp_path / f"calls-{name}-{x}").exists() for name in names) for x in range(60)]
    # A call that both began before either had kept it runs on both; no other does.
    assert set(counted) <= {1, 2}
    assert counted.count(2) < 60

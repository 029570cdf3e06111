"""How long it takes from the first line of a fresh Python to the first result of a task."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.contenders import MANIFEST, WORKERS
from benchmarks.measure import Benchmark, Budget

#: As a person would write it; the clock runs from before the imports to the result.
_FRAME = """
import time
started_at = time.perf_counter()

def double(x):
    return 2 * x

if __name__ == "__main__":
{start}
    assert client.submit(double, 21).result() == 42
    print(time.perf_counter() - started_at)
{stop}
"""
_OURS = _FRAME.format(
    start="""
    from scalable_nb import ScalableSession
    session = ScalableSession.from_yaml("./scalable.yaml", target="local")
    client = session.start()
""",
    stop="    session.close()",
)
_PLAIN = _FRAME.format(
    start=f"""
    from distributed import Client, LocalCluster
    cluster = LocalCluster(
        n_workers={WORKERS}, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    )
    client = Client(cluster)
""",
    stop="    client.close(); cluster.close()",
)


def benchmark() -> Benchmark:
    """Seconds to the first result on the local target."""
    return Benchmark(
        name="start-time",
        summary="from the start of the local target to the first result, imports included",
        unit="s",
        budget=Budget(must=1.6, wanted=1.2, is_upper=True),
        ours=partial(_time, _OURS),
        plain=partial(_time, _PLAIN),
    )


def _time(script: str) -> float:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        Path(folder, "scalable.yaml").write_text(MANIFEST)
        Path(folder, "first_result.py").write_text(script)
        run = subprocess.run(
            [sys.executable, "first_result.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode:
        raise RuntimeError(f"the script ended with {run.returncode}:\n{script}\n{run.stderr}")
    return float(run.stdout)

"""Names that both ends of a connection use: messages, topics, metrics, resources."""

from __future__ import annotations

from typing import Final

#: Topic under which the host logs notices for all kernels.
NOTICE_TOPIC: Final = "scalable-notice"

#: Metric of a worker's heartbeat: peak memory of its process in bytes.
PEAK_METRIC: Final = "scalable_peak_bytes"

#: Asks a worker whether a task that Dask took back had started, and its answer.
REVOCATION_QUERY: Final = "scalable-recall"
REVOCATION_ANSWER: Final = "scalable-recalled"

#: Dask resource that the workers of a component offer, before the component's name.
COMPONENT_PREFIX: Final = "component:"

#: More than any worker has threads: it says where a task may run, not how many of them.
_UNLIMITED: Final = 1e6


def offer(component: str) -> dict[str, float]:
    """Return the resources that a worker of this component offers."""
    return {f"{COMPONENT_PREFIX}{component}": _UNLIMITED} if component else {}


def demand(component: str) -> dict[str, float]:
    """Return the resources that a task of this component needs."""
    return {f"{COMPONENT_PREFIX}{component}": 1} if component else {}

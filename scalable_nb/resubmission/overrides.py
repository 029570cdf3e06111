"""What a person wants otherwise this time: code, retries, time, memory, another component."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dask.utils import funcname, parse_bytes

from scalable_nb.client.call_options import find_component
from scalable_nb.errors import SubmitError
from scalable_nb.faults.backoff import RetryPolicy
from scalable_nb.faults.policy import TaskPolicy
from scalable_nb.manifest.schema import Manifest


@dataclass(frozen=True)
class Overrides:
    """The options of a resubmission that change how tasks run.

    Attributes
    ----------
    func : callable or None
        Runs in place of the function of that name.
    retries : int, RetryPolicy or None
    timeout_s : float or None
        Seconds.
    memory : str, int or None
        Of a worker that is large enough, e.g. ``"8G"`` or bytes.
    tag : str or None
        A component or one of its tags.
    """

    func: Callable[..., Any] | None = None
    retries: int | RetryPolicy | None = None
    timeout_s: float | None = None
    memory: str | int | None = None
    tag: str | None = None

    def __post_init__(self) -> None:
        if self.func is not None and not callable(self.func):
            raise SubmitError(
                f"func={self.func!r} (a {type(self.func).__name__}) is not callable; expected the "
                "corrected function itself, as in resubmit(futures, func=simulate)"
            )
        if self.memory is not None and self.tag is not None:
            raise SubmitError(
                f"memory={self.memory!r} and tag={self.tag!r} both choose a component: give one"
            )

    def wire(self, manifest: Manifest) -> dict[str, Any]:
        """What changes in the terms of a task, in plain values.

        Raises
        ------
        UnknownNameError
            When there is no such component.
        SubmitError
            When none is large enough.
        """
        policy = TaskPolicy(retries=self.retries, timeout_s=self.timeout_s)
        component = self._component(manifest)
        return {**policy.changes(), **({"component": component} if component else {})}

    def replaces(self, functions: Iterable[str]) -> set[str]:
        """Which of the functions of the tasks to run `func` stands for.

        Raises
        ------
        SubmitError
            When that cannot be known.
        """
        names = set(functions)
        if self.func is None or len(names) <= 1:
            return names if self.func is not None else set()
        if funcname(self.func) in names:
            return {funcname(self.func)}
        raise SubmitError(
            f"func={funcname(self.func)} replaces which of {', '.join(sorted(names))}? Give it "
            "that name, or choose the tasks with only=."
        )

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        if self.memory is None:
            return None
        try:
            nbytes = int(parse_bytes(self.memory))
        except (ValueError, TypeError, AttributeError):
            nbytes = 0
        if nbytes <= 0:
            raise SubmitError(
                f"memory={self.memory!r} is not a size of memory; expected e.g. memory='8G'"
            )
        return nbytes

    def _component(self, manifest: Manifest) -> str:
        if self.tag is not None:
            return find_component(manifest, None, self.tag)
        wanted = self.memory_bytes
        if wanted is None:
            return ""
        sizes = {
            name: size for name, each in manifest.components.items() if (size := each.memory_bytes)
        }
        enough = {name: size for name, size in sizes.items() if size >= wanted}
        if not enough:
            known = ", ".join(f"{name} {size / 1e9:.3g} GB" for name, size in sizes.items())
            raise SubmitError(
                f"memory={self.memory!r}: no component of this session has that much ("
                f"{known or 'none says how much it has'}). Raise `memory:` in scalable.yaml and "
                "start again; `resubmit(run=..., memory=...)` starts the target with it."
            )
        return min(enough, key=lambda name: enough[name])

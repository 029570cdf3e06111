"""Changing the number of workers of a live session."""

from __future__ import annotations

from collections.abc import Callable

from scalable_nb.client.host_api import HostApi
from scalable_nb.errors import ScalingError, UnknownNameError
from scalable_nb.session.session_spec import SessionSpec


class WorkerControl:
    """Scales the workers of a session; see `ScalableSession.scale` and `adapt`.

    Parameters
    ----------
    host_api : HostApi
    spec : SessionSpec
    check_alive : callable
        Raises unless the session takes work.
    """

    def __init__(
        self, host_api: HostApi, spec: SessionSpec, check_alive: Callable[[], None]
    ) -> None:
        self._host_api = host_api
        self._spec = spec
        self._check_alive = check_alive

    def scale(self, n: int, component: str | None) -> dict[str, int]:
        """Set the number of workers; return the wanted ones by component."""
        self._check_counts(n=n)
        self._check_component(component, f"session.scale({n})")
        return self._host_api.scale(n, component)

    def adapt(self, minimum: int, maximum: int | None, component: str | None) -> dict[str, int]:
        """Let the number of workers follow the tasks; return the wanted ones by component."""
        maximum = maximum if maximum is not None else max(self._spec.plan().workers, minimum, 1)
        self._check_counts(minimum=minimum, maximum=maximum)
        if minimum > maximum or maximum < 1:
            raise ScalingError(
                f"minimum={minimum}, maximum={maximum}: expected 0 <= minimum <= maximum and at "
                "least one worker; e.g. session.adapt(minimum=0, maximum=10)"
            )
        self._check_component(component, f"session.adapt({minimum}, {maximum})")
        return self._host_api.adapt(minimum, maximum, component)

    def _check_counts(self, **counts: object) -> None:
        self._check_alive()
        for name, value in counts.items():
            if type(value) is not int or value < 0:
                raise ScalingError(
                    f"{name}={value!r} is not a number of workers; expected a whole number, "
                    f"0 or more, e.g. {name}=4"
                )

    def _check_component(self, component: str | None, instead: str) -> None:
        if component is None:
            return
        components = self._spec.loaded.manifest.components
        if component not in components:
            raise UnknownNameError("component", component, components)
        if self._spec.target.provider == "local":
            raise ScalingError(
                f"component={component!r}: on the local target {self._spec.target_name!r} all "
                f"components share the workers; say `{instead}`"
            )

"""A data service on this machine: slow, failing as such services do, and held by a test."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: What is no number; as markup it would run. One word, so that the error's message has it; 10,000
#: characters follow.
BROKEN_TEXT = (
    '<script>window.wasHacked=true</script><img/src="data:,"onerror="window.wasHacked=true">'
)
STATIONS = 120
#: A task may be tried this often.
ATTEMPTS = 3

_SLOWEST_S = 0.16


def outcome_of(station: int) -> str:
    """What happens to who asks for a station: ``fine late down broken``."""
    if station % 15 == 8:
        return "broken"  # its data are no numbers
    if station % 30 == 17:
        return "down"  # it never answers
    return "late" if station % 10 == 3 else "fine"  # late: from the second request on


class StationService:
    """The service's state.

    Attributes
    ----------
    requests : Counter
        How often each station was asked for.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: Counter[int] = Counter()
        self._done = self._allowed = 0
        self._changed = threading.Condition()

    def release(self, tasks: int) -> None:
        """Let this many tasks, in all, get the answer that ends them; the next ones wait."""
        with self._changed:
            self._allowed = tasks
            self._changed.notify_all()

    def answer(self, station: int) -> tuple[int, str]:
        """Status and text of an answer; returns when it may be given."""
        with self._changed:
            self.requests[station] += 1
            number = self.requests[station]
        is_up = {"down": False, "late": number > 1}.get(outcome_of(station), True)
        if is_up or number == ATTEMPTS:
            self._wait_for_release()
        if not is_up:
            return 503, "try again later"
        # The service is slow, some stations more than others.
        threading.Event().wait(_SLOWEST_S * (station * 0.618 % 1))
        hours = [f"{10 + (station * 7 + hour) % 12}.5" for hour in range(24)]
        return 200, BROKEN_TEXT + "x" * 10_000 if outcome_of(station) == "broken" else " ".join(
            hours
        )

    def _wait_for_release(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._done < self._allowed)
            self._done += 1


@contextmanager
def station_service() -> Iterator[StationService]:
    """A running service, which answers everybody when it ends."""
    service = StationService()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = service.answer(int(self.path.rpartition("/")[2]))
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.release(10 * STATIONS)
        server.shutdown()
        server.server_close()
        thread.join()

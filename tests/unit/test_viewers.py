"""Whether anybody looks at a view."""

from __future__ import annotations

from scalable_nb.widgets.viewers import VIEWER_TIMEOUT_S, Kernel, Viewers


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_silence_counts_only_while_the_kernel_could_hear() -> None:
    """An idle kernel waits a while, one that runs a cell for ever, and then a while again."""
    clock = Clock()
    kernel = Kernel(clock)
    viewers = Viewers(kernel)
    clock.now += VIEWER_TIMEOUT_S - 1
    assert viewers.are_present
    kernel.begin_cell()
    clock.now += 100_000
    assert viewers.are_present
    assert viewers.expires_in_s() is None
    kernel.end_cell()
    assert viewers.expires_in_s() == VIEWER_TIMEOUT_S
    clock.now += VIEWER_TIMEOUT_S
    assert not viewers.are_present


def test_who_is_heard_stays_and_who_leaves_is_gone_at_once() -> None:
    """A page's word makes the patience begin anew; a page that closes ends it."""
    clock = Clock()
    kernel = Kernel(clock)
    viewers = Viewers(kernel)
    clock.now += VIEWER_TIMEOUT_S - 1
    viewers.record_seen()
    clock.now += VIEWER_TIMEOUT_S - 1
    assert viewers.are_present
    viewers.leave()
    assert not viewers.are_present
    kernel.begin_cell()
    assert viewers.are_present
    kernel.end_cell()
    assert not viewers.are_present
    viewers.record_seen()
    assert viewers.are_present

"""Whether anybody looks at a view."""

from __future__ import annotations

from scalable_nb.widgets.viewers import PATIENCE_S, Audience, Kernel


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_silence_counts_only_while_the_kernel_could_hear() -> None:
    """An idle kernel waits a while, one that runs a cell for ever, and then a while again."""
    clock = Clock()
    kernel = Kernel(clock)
    audience = Audience(kernel)
    clock.now += PATIENCE_S - 1
    assert audience.is_there
    kernel.begin_cell()
    clock.now += 100_000
    assert audience.is_there
    assert audience.leaves_in_s() is None
    kernel.end_cell()
    assert audience.leaves_in_s() == PATIENCE_S
    clock.now += PATIENCE_S
    assert not audience.is_there


def test_who_is_heard_stays_and_who_leaves_is_gone_at_once() -> None:
    """A page's word makes the patience begin anew; a page that closes ends it."""
    clock = Clock()
    kernel = Kernel(clock)
    audience = Audience(kernel)
    clock.now += PATIENCE_S - 1
    audience.hear()
    clock.now += PATIENCE_S - 1
    assert audience.is_there
    audience.leave()
    assert not audience.is_there
    kernel.begin_cell()
    assert audience.is_there
    kernel.end_cell()
    assert not audience.is_there
    audience.hear()
    assert audience.is_there

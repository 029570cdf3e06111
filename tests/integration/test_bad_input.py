"""What a person does wrong: named at once, with the next step, and nothing lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scalable_nb import ScalableSession, errors, resubmit

Start = Callable[..., ScalableSession]


def takes_n(x: int, n: int = 0) -> int:
    """A function with a parameter that is also an option of `submit`."""
    return x + n


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("not a function",), {}, errors.SubmitError, "'not a function' (a str) is not callable"),
        ((abs, -1), {"task": "run_analysi"}, errors.UnknownNameError, "mean 'run_analysis'?"),
        ((abs, -1), {"tag": "analyis"}, errors.UnknownNameError, "Did you mean 'analysis'?"),
        ((abs, -1), {"retries": -1}, errors.PolicyError, "retries=-1"),
        ((abs, -1), {"retries": "3"}, errors.PolicyError, "retries='3'"),
        ((abs, -1), {"n": 0}, errors.SubmitError, "n=0 is not a number of slots"),
        ((abs, -1), {"n": 99}, errors.SubmitError, "n=99 slots, but a worker of target 'local'"),
        ((takes_n, 1), {"n": 2}, errors.SubmitError, "functools.partial(takes_n, n=...)"),
        ((abs, threading.Lock()), {}, errors.SubmitError, "argument number 1, a lock"),
    ],
)  # fmt: skip
def test_a_call_that_makes_no_sense_is_refused_with_its_reason(
    shared_session: ScalableSession,
    arguments: tuple[object, ...],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    """Nothing is submitted and the session goes on."""
    with pytest.raises(error) as refused:
        shared_session.client.submit(*arguments, **options)  # type: ignore[arg-type]
    assert message in str(refused.value)
    assert shared_session.client.submit(abs, -1).result(timeout=30) == 1


def test_a_function_that_cannot_travel_names_what_stands_in_the_way(
    shared_session: ScalableSession,
) -> None:
    """The error names the variable that the function uses and cannot take along."""
    connection = threading.Lock()

    def function(x: int) -> int:
        with connection:
            return x

    with pytest.raises(errors.SubmitError, match="It uses 'connection', a lock"):
        shared_session.client.submit(function, 1)


def test_an_unknown_way_to_gather_is_named(shared_session: ScalableSession) -> None:
    """`errors=` knows three words."""
    with pytest.raises(ValueError, match="expected 'raise', 'skip' or 'return'"):
        shared_session.client.gather([], errors="ignore")


def test_gather_gives_errors_in_their_places(shared_session: ScalableSession) -> None:
    """With errors="return" the exception stands where the result would."""
    futures = shared_session.client.map(lambda x: 1 / x, [1, 0, 2])
    one, error, half = shared_session.client.gather(futures, errors="return")
    assert (one, half) == (1, 0.5)
    assert isinstance(error, ZeroDivisionError)


def test_resubmit_with_a_word_that_names_nothing_runs_nothing(
    shared_session: ScalableSession,
) -> None:
    """A mistyped failure class is answered with those there are."""
    futures = shared_session.client.map(lambda x: 1 / x, [1, 0])
    futures.partial()
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'ZeroDivisionError'"):
        resubmit(futures, only="ZeroDivisonError")


def test_a_runs_folder_that_cannot_be_made_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder and the variable that moves it are in the error, and nothing was started."""
    (folder / "file").touch()
    monkeypatch.setenv("SCALABLE_RUNS_DIR", str(folder / "file" / "runs"))
    with pytest.raises(errors.RunFolderError, match="SCALABLE_RUNS_DIR"):
        ScalableSession.from_yaml().start()


def test_a_runs_folder_that_others_may_write_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are pickles: a folder that is open to others is no place for them."""
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("SCALABLE_RUNS_DIR", str(shared))
    with pytest.raises(errors.RunFolderError, match="chmod go-w"):
        ScalableSession.from_yaml().start()


def test_an_unknown_target_is_named_before_anything_starts(folder: Path) -> None:
    """The closest target is suggested."""
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'local'"):
        ScalableSession.from_yaml(target="locall")


def test_a_session_that_was_not_started_says_so(folder: Path) -> None:
    """Asking for its failures or status names the call that starts it."""
    session = ScalableSession.from_yaml()
    with pytest.raises(errors.NoSessionError, match=r"session\.start\(\)"):
        session.status()
    with pytest.raises(errors.NoSessionError, match=r"session\.start\(\)"):
        session.failures()

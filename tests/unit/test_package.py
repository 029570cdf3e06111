"""What `import scalable_nb` gives: little at once, everything by name, errors one can catch."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from importlib import metadata
from typing import Any

import distributed
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import scalable_nb
from scalable_nb import errors

HEAVY = {"IPython", "dask", "distributed", "ipywidgets", "numpy", "pandas", "plotly", "pydantic"}

ERRORS: list[BaseException] = [
    errors.BatchCommandError(["squeue", "--me"], 1, "", "slurm_load_jobs error"),
    errors.DaskVersionError("is missing in distributed 2027.1.0"),
    errors.HostDiedError("the host is gone"),
    errors.LeftOutError("f-1 was left out: cancelled"),
    errors.ManifestError("two problems", ["line 1", "line 2"]),
    errors.NoRunError("run", "last", (), "`%scalable start` begins a run."),
    errors.NoSessionError("no session is live"),
    errors.OutOfMemoryError("used 2 GB of 1 GB"),
    errors.PolicyError("retries=-1"),
    errors.ProtocolError("ScaleRequest.count is missing"),
    errors.ProtocolVersionError("protocol version 2"),
    errors.RemoteError("mylib.Odd", "message", "Traceback: ..."),
    errors.ResultValidationError("refused"),
    errors.RunFolderError("not private"),
    errors.ScalableError("base"),
    errors.SessionConflictError("another target"),
    errors.ScalingError("n=-1"),
    errors.SessionError("session"),
    errors.SettingsError("not a number"),
    errors.StartError("did not come up"),
    errors.NotCacheableError("run() is not cached: CONFIG['engine']: sqlalchemy Engine"),
    errors.SubmitError("not callable"),
    errors.TaskError("task"),
    errors.TaskTimeoutError("too long"),
    errors.UnknownNameError("target", "slrum", ["slurm", "local"], "Type this."),
    errors.UnknownOutcomeError("nobody knows"),
    errors.WorkerLostError("exit code 3"),
]


def run(code: str) -> str:
    """What a new Python prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- importing -----------------------------------------------------------------------


def test_paths_that_earlier_versions_showed_lead_to_the_functions() -> None:
    """What `%scalable help` said under "in Python" can still be imported."""
    from scalable_nb.cache.maintenance import explain_miss
    from scalable_nb.cache.why import why
    from scalable_nb.diagnosis.diagnose import diagnose
    from scalable_nb.faults.diagnose import diagnose as earlier

    assert why is explain_miss
    assert earlier is diagnose


def test_importing_is_light_and_silent() -> None:
    """The import loads a handful of modules, starts no thread and prints nothing.

    Modules are counted, not seconds: on a busy machine seconds say nothing.
    """
    code = (
        "import json, sys, threading; before = set(sys.modules); import scalable_nb\n"
        "new = sorted(set(sys.modules) - before)\n"
        "import logging\n"
        "print(json.dumps([new, threading.active_count(), len(logging.getLogger().handlers)]))"
    )
    modules, threads, handlers = json.loads(run(code))
    assert (threads, handlers) == (1, 0)
    assert {name.partition(".")[0] for name in modules} <= {*sys.stdlib_module_names, "scalable_nb"}
    assert [name for name in modules if name.startswith("scalable_nb")] == ["scalable_nb"]
    assert len(modules) < 20


def test_the_errors_are_light_too() -> None:
    """Whoever only wants to name our errors does not wait for Dask, and sees all of them."""
    code = (
        "import sys; from scalable_nb import errors\n"
        "print(set(errors.__all__) <= set(dir(errors)))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    is_listed, *modules = run(code).split()
    assert is_listed == "True"
    assert HEAVY.isdisjoint(modules)


def test_session_is_imported_without_distributed() -> None:
    """A start launches the host first, and loads `distributed` while that starts."""
    code = "import scalable_nb.session.session, sys; print(*sys.modules)"
    assert "distributed" not in run(code).split()


def test_every_name_resolves_in_a_fresh_python() -> None:
    """Each public name is listed and can be used, without a session or a notebook."""
    code = (
        "import scalable_nb; print(*[name for name in scalable_nb.__all__"
        " if getattr(scalable_nb, name) is None or name not in dir(scalable_nb)], '.')"
    )
    assert run(code).split() == ["."]


def test_public_names_are_listed() -> None:
    """`dir()` and `__all__` agree, so that completion shows what there is."""
    assert set(scalable_nb.__all__) <= set(dir(scalable_nb))
    assert sorted(scalable_nb.__all__) == list(scalable_nb.__all__)
    assert {"ScalableSession", "TaskPolicy", "cacheable", "resubmit"} <= set(scalable_nb.__all__)
    namespace: dict[str, Any] = {}
    exec("from scalable_nb import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(scalable_nb.__all__)


@pytest.mark.parametrize("name", scalable_nb.__all__)
def test_a_name_is_the_same_object_everywhere(name: str) -> None:
    """A public name gives what its module defines, under that name, documented."""
    value = getattr(scalable_nb, name)
    assert value is getattr(scalable_nb, name)
    assert getattr(value, "__qualname__", value.__name__).rpartition(".")[2] == name
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that does not exist is refused as Python does it, so that `hasattr` works."""
    with pytest.raises(AttributeError, match=r"^module 'scalable_nb' has no attribute 'Sesion'$"):
        _ = scalable_nb.Sesion
    assert not hasattr(scalable_nb, "_repr_html_")
    with pytest.raises(ImportError, match="cannot import name 'Sesion'"):
        exec("from scalable_nb import Sesion")


# --- errors -----------------------------------------------------------------------------


def test_every_error_is_tried_here() -> None:
    """The list above has one of each public error, and all are of one family."""
    assert sorted(type(error).__name__ for error in ERRORS) == sorted(errors.__all__)
    assert all(isinstance(error, errors.ScalableError) for error in ERRORS)


def test_errors_that_were_there_before_dask_survive_too() -> None:
    """Dask changes how exceptions are pickled while it is imported, in whatever order."""
    code = (
        "import pickle; from scalable_nb import errors\n"
        "early = [errors.HostDiedError('gone'), errors.RunFolderError('x'),"
        " errors.ManifestError('two', ['1', '2']), errors.UnknownNameError('run', 'x', ['y'])]\n"
        "import distributed\n"
        "for error in early:\n"
        "    again = pickle.loads(pickle.dumps(error))\n"
        "    assert (type(again), str(again)) == (type(error), str(error))\n"
        "    assert vars(again) == vars(error), vars(again)\n"
    )
    assert run(code) == ""


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_errors_survive_the_way_from_a_worker(error: BaseException, again: Any) -> None:
    """Pickled and read again, an error has its class, its text and all its facts."""
    arrived = again(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error) != ""
    assert vars(arrived) == vars(error)
    assert arrived.args == error.args


@pytest.mark.parametrize(
    ("error_type", "caught_by"),
    [
        (errors.OutOfMemoryError, (MemoryError, distributed.KilledWorker, errors.WorkerLostError)),
        (errors.WorkerLostError, (distributed.KilledWorker, errors.TaskError)),
        (errors.UnknownOutcomeError, (errors.WorkerLostError, distributed.KilledWorker)),
        (errors.TaskTimeoutError, (TimeoutError, errors.TaskError)),
        (errors.ResultValidationError, (ValueError, errors.TaskError)),
        (errors.RemoteError, (errors.TaskError,)),
        (errors.SettingsError, (ValueError,)),
        (errors.ManifestError, (ValueError,)),
        (errors.PolicyError, (ValueError,)),
        (errors.UnknownNameError, (KeyError,)),
        (errors.SubmitError, (TypeError,)),
        (errors.RunFolderError, (OSError,)),
        (errors.NoSessionError, (errors.SessionError, RuntimeError)),
        (errors.SessionConflictError, (errors.SessionError,)),
        (errors.StartError, (errors.SessionError,)),
        (errors.DaskVersionError, (ImportError,)),
        (errors.HostDiedError, (errors.SessionError, ConnectionError)),
    ],
)
def test_errors_are_caught_by_what_a_person_writes(
    error_type: type[BaseException], caught_by: tuple[type[BaseException], ...]
) -> None:
    """Whoever knows Python's and Dask's exceptions catches ours with them."""
    for base in caught_by:
        assert issubclass(error_type, base)
    assert issubclass(error_type, errors.TaskError) == (
        error_type.__name__ in {
            "OutOfMemoryError", "RemoteError", "ResultValidationError", "TaskTimeoutError",
            "UnknownOutcomeError", "WorkerLostError",
        }
    )  # fmt: skip


def test_a_lost_worker_says_what_is_known() -> None:
    """The text is the sentence alone, not the one of Dask's error for its own objects."""
    assert str(errors.WorkerLostError("f(1): exit code 3")) == "f(1): exit code 3"
    assert repr(errors.OutOfMemoryError("too much")) == "OutOfMemoryError('too much')"


@pytest.mark.parametrize(
    ("name", "known", "hint", "text"),
    [
        ("slrum", ["slurm", "local"], "", "Did you mean 'slurm'? Known: local, slurm."),
        ("x", ["slurm", "local"], "Do this.", "Known: local, slurm. Do this."),
        ("x", [], "", "Known: none is defined."),
        (7, ["local"], "", "Known: local."),
    ],
)
def test_an_unknown_name_comes_with_the_known_ones(
    name: object, known: list[str], hint: str, text: str
) -> None:
    """The message says the name, the closest one, all there are, and what to type."""
    error = errors.UnknownNameError("target", name, known, hint)
    assert str(error) == f"no target named {name!r}. {text}"
    assert (error.kind, error.name, error.known) == ("target", name, tuple(known))


def test_a_manifest_error_lists_its_problems() -> None:
    """Each problem can be read on its own."""
    error = errors.ManifestError("text", iter(["first", "second"]))
    assert (str(error), error.problems) == ("text", ("first", "second"))
    assert errors.ManifestError("text").problems == ()


def test_a_substitute_keeps_what_the_worker_saw() -> None:
    """An exception that could not travel is told by class, message and traceback."""
    error = errors.RemoteError("mylib.Odd", "it broke", "Traceback ...")
    assert str(error) == "mylib.Odd: it broke"
    assert error.traceback_text == "Traceback ..."


# --- a worker's environment -----------------------------------------------------------

#: Imports two rooms where only Dask, distributed, cloudpickle and what these need are installed.
_BARE_IMPORT = """
import importlib, pkgutil, sys
refused, rooms = set(sys.argv[1].split()), sys.argv[2:]

class Refuser:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuser())
for room in rooms:
    package = importlib.import_module(f"scalable_nb.{room}")
    for module in pkgutil.iter_modules(package.__path__):
        name = f"scalable_nb.{room}.{module.name}"
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            print(f"{name} needs {error.name}")
"""


def _requirements(*names: str) -> set[str]:
    """Distributions that are installed with these, themselves included."""
    found: set[str] = set()
    stack = list(names)
    while stack:
        name = canonicalize_name(stack.pop())
        if name not in found:
            found.add(name)
            required = map(Requirement, metadata.requires(name) or ())
            stack += [
                each.name
                for each in required
                if each.marker is None or each.marker.evaluate({"extra": ""})
            ]
    return found


def test_protocol_and_worker_need_nothing_but_dask() -> None:
    """A worker's environment is Dask, distributed and cloudpickle; the rest is not imported."""
    installed = _requirements("dask", "distributed", "cloudpickle")
    others = [
        module
        for module, owners in metadata.packages_distributions().items()
        if module != "scalable_nb" and installed.isdisjoint(map(canonicalize_name, owners))
    ]
    assert {"numpy", "orjson", "pydantic", "diskcache"} <= set(others)
    command = [sys.executable, "-c", _BARE_IMPORT, " ".join(others), "protocol", "worker"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr

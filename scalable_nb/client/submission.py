"""Submissions: calls that are named and packed for the host, or read back from the call log."""

from __future__ import annotations

import gc
import inspect
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import orjson
from dask.tokenize import tokenize
from dask.utils import funcname
from distributed import Future

from scalable_nb.cache.hashing.user_modules import is_user_code
from scalable_nb.cache.keys import own_result_key
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.call_log import CallLog, RecordedBatch, RecordedCall, RecordedTask
from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.packing import Preview, SharedBuffers, has_futures, pack_arguments
from scalable_nb.client.user_code.kernel_sources import pack_modules, warn_of_stale
from scalable_nb.errors import SubmitError
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.messages import BatchMessage

_HIDDEN = "…"
_MANY = 1000


class Prepared(NamedTuple):
    """One call before it is packed.

    ``result_key`` is None where it is not known yet; the arguments of the others have their
    declared types.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result_key: str | None = None


class PackedCall(NamedTuple):
    """One packed call, with the futures that are its inputs."""

    call: Call
    inputs: Sequence[Future[Any]]
    preview: str


@dataclass(frozen=True)
class SchedulingOptions:
    """Where, and in which order, the calls of a submission run; as for `Client.submit`."""

    workers: Any = None
    allow_other_workers: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)
    priority: int = 0
    fifo_timeout: str = "100 ms"

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "resources": dict(self.resources)}


@dataclass(frozen=True)
class Submission:
    """What the calls of one `submit` or `map` have in common.

    Attributes
    ----------
    batch : BatchMessage
    wire : dict
        The policy and the folder of stored results, for the annotation.
    scheduling : SchedulingOptions
    record_args : bool
        Whether functions and arguments go into the call log.
    identity : str
        Digest of what the function is; empty where it has none.
    is_submit : bool
        Whether it is the call of one `submit`, and so a batch of one.
    """

    batch: BatchMessage
    wire: Mapping[str, Any]
    scheduling: SchedulingOptions
    record_args: bool = True
    identity: str = ""
    is_submit: bool = False

    def recorded(self, at: float) -> RecordedBatch:
        """As it goes into the call log."""
        batch = self.batch
        return RecordedBatch(
            batch_id=batch.batch_id,
            name=batch.name,
            function_name=batch.function,
            task=batch.task,
            component=batch.component,
            tag=batch.tag,
            is_async=batch.is_async,
            wire=dict(self.wire),
            placing=self.scheduling.to_dict(),
            identity=self.identity,
            at=at,
            is_submit=self.is_submit,
        )


def name_calls(
    options: CallOptions,
    prefix: str,
    calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]],
    token: Callable[[Sequence[Any], Mapping[str, Any]], str],
) -> list[tuple[str, Prepared]]:
    """Keys for calls that are deduplicated.

    A call whose result may be stored is named by the key of its result, which says as much as
    Dask's ``token`` and has to be made anyway.
    """
    named = []
    for call in calls:
        if options.call_keys is not None and not has_futures(*call):
            arguments = options.arguments(*call)
            result_key = options.cache_key(*arguments)
            name = result_key or token(*call)
            named.append((f"{prefix}-{name}", Prepared(*arguments, result_key)))
        else:
            named.append((f"{prefix}-{token(*call)}", Prepared(*call)))
    return named


def identified(func: Callable[..., Any], options: CallOptions) -> Any:
    """Return a function as it goes into Dask's token of a call: with the digest of its code.

    For Dask, a function of a module is its name, which is the same after it was edited and
    reloaded. Those of installed packages are their names here, too.
    """
    plain = inspect.unwrap(func)
    if isinstance(plain, FunctionType | type) and not is_user_code(plain):
        return func
    if isinstance(plain, BuiltinFunctionType):
        return func
    if options.modules.stale:  # an older version than the one that the identity was read from
        return (func, options.identity, options.modules.digest)
    return (func, options.identity)


def number_calls(
    prefix: str, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]
) -> list[tuple[str, Prepared]]:
    """Keys for calls that are not deduplicated."""
    unique = uuid.uuid4()
    return [(f"{prefix}-{unique}-{number}", Prepared(*call)) for number, call in enumerate(calls)]


def list_calls(
    keys: Sequence[Any], calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]
) -> list[tuple[Any, Prepared]]:
    """Calls with the keys that a person gave."""
    if len(keys) != len(calls):
        raise SubmitError(f"key= lists {len(keys)} keys for {len(calls)} calls")
    return [(key, Prepared(*call)) for key, call in zip(keys, calls, strict=True)]


def name_map(
    func: Callable[..., Any],
    options: CallOptions,
    items: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]],
    kwargs: Mapping[str, Any],
    key: Any,
    pure: bool,
) -> list[tuple[Any, Prepared]]:
    """Return the calls of a `map` with keys like those that Dask itself would give."""
    if isinstance(key, Iterable) and not isinstance(key, str):
        return list_calls(list(key), items)
    prefix = key or funcname(func)
    if not pure:
        return number_calls(prefix, items)
    token = tokenize(identified(func, options), dict(kwargs))
    return name_calls(options, prefix, items, lambda args, _: tokenize(token, args))


def pack_calls(
    func: Callable[..., Any],
    options: CallOptions,
    calls: Mapping[Any, Prepared],
    batch_id: str,
) -> dict[Any, PackedCall]:
    """Pickle the arguments of calls.

    Parameters
    ----------
    func : callable
        As given by the person, for previews and messages.
    """
    preview = Preview(inspect.unwrap(func))
    shared = SharedBuffers()
    about = b"" if options.call_keys is None else orjson.dumps(options.call_keys.about())
    function, digest = options.packed_function.pickled, options.modules.digest
    imports: set[str] = set()
    packed = {}
    for key, prepared in calls.items():
        given, result_key = (prepared.args, prepared.kwargs), prepared.result_key
        args, kwargs = given if result_key is not None else options.arguments(*given)
        pickled, inputs, buffers, imported = pack_arguments(args, kwargs, func, shared)
        imports.update(imported)
        if result_key is None:
            result_key = options.result_key(key, args, kwargs, batch_id, has_inputs=bool(inputs))
        shown = preview(args, kwargs) if options.record_args else _HIDDEN
        known = about if result_key else b""
        call = Call(function, pickled, result_key, buffers, known, digest)
        packed[key] = PackedCall(call, inputs, shown)
    return _with_imports(packed, options, imports) if imports else packed


def _with_imports(
    packed: Mapping[Any, PackedCall], options: CallOptions, imports: Collection[str]
) -> dict[Any, PackedCall]:
    """Return calls with the modules that code in their arguments may import, too."""
    modules = pack_modules(options.packed_function.imports.union(imports))
    changes: dict[str, Any] = {"modules": modules.digest}
    if modules.stale and options.call_keys is not None:
        changes["result_key"] = ""  # made from the files, and the kernel's versions run
    warn_of_stale(modules.stale)
    return {key: each._replace(call=replace(each.call, **changes)) for key, each in packed.items()}


@contextmanager
def many_objects(count: int) -> Iterator[None]:
    """Make many objects of which none is garbage.

    The collector would look at all of them again and again, which takes longer than to make them.
    Frozen and unfrozen, they are old: it looks at them when it looks at everything.
    """
    if count < _MANY or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def recorded_calls(packed: Mapping[Any, PackedCall]) -> Iterator[RecordedCall]:
    """Packed calls as they go into the call log."""
    for key, each in packed.items():
        inputs = _keys(each.inputs) if each.inputs else ()
        yield RecordedCall(key, each.call, inputs, each.preview)


def _keys(futures: Sequence[Future[Any]]) -> tuple[Any, ...]:
    return tuple(future.key for future in futures)


# --- calls of the call log ----------------------------------------------------------


def find_stored(
    log: CallLog,
    tasks: Iterable[RecordedTask],
    results: Path,
    is_of_run: Callable[[RecordedTask], bool] = lambda task: True,
) -> dict[Any, tuple[str, PackedCall]]:
    """Results of recorded calls: key -> (folder, call with the key of the result).

    Parameters
    ----------
    log : CallLog
    tasks : iterable of RecordedTask
    results : Path
        Of the run, where its host wrote what was still wanted at its end.
    is_of_run : callable, optional
        Whether a cached result is no older one, which the task was to replace.
    """
    places: dict[Any, list[tuple[str, str]]] = {}  # (folder, key of the result), best first
    wanted: dict[str, set[str]] = {}
    for task in tasks:
        places[task.key] = [
            (store, each.result_key)
            for each in (task, *log.earlier.get(task.key, ()))
            if (store := each.batch.wire.get("store")) and each.result_key and is_of_run(each)
        ]
        places[task.key].append((str(results), own_result_key(task.key)))
        for folder, result_key in places[task.key]:
            wanted.setdefault(folder, set()).add(result_key)
    there = {folder: ResultStore(Path(folder)).contained(keys) for folder, keys in wanted.items()}
    found = {}
    for key, each in places.items():
        for folder, result_key in each:
            if result_key in there[folder]:
                task = log.tasks[key]
                call = log.load_call(task, result_key) or Call(b"", b"", result_key)
                found[key] = folder, PackedCall(call, (), task.preview)
                break
    return found


def as_submission(task: RecordedTask, **changes: Any) -> Submission:
    """What the calls of a recorded batch have in common, to be submitted again."""
    batch = task.batch
    wire: Mapping[str, Any] = {**batch.wire, **changes}
    return Submission(
        batch=BatchMessage(
            batch_id=batch.batch_id,
            name=batch.name,
            function=batch.function_name,
            task=batch.task,
            component=wire.get("component") or batch.component,
            tag=batch.tag,
            is_async=batch.is_async,
        ),
        wire=wire,
        scheduling=SchedulingOptions(**batch.placing),
        identity=batch.identity,
    )

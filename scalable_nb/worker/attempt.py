"""Run one attempt of one task on a worker.

The wrapper registers the attempt, looks up a stored result and calls the function. On an
exception the host decides whether to retry. A success costs no message.
"""

from __future__ import annotations

import functools
import os
import pickle
import platform
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from time import time
from typing import Any, Final

from distributed import Reschedule, Worker, get_worker
from distributed.protocol import pickle as dask_pickle
from distributed.utils import sync
from distributed.utils_comm import retry

from scalable_nb.errors import RemoteError, ResultValidationError
from scalable_nb.errors.worker_errors import UnknownOutcomeError
from scalable_nb.faults.categories import Category
from scalable_nb.faults.classify import classify, verdict
from scalable_nb.faults.fingerprint import fingerprint_of
from scalable_nb.faults.tracebacks import format_traceback, safe_message
from scalable_nb.protocol.annotations import ANNOTATION, TaskAnnotation
from scalable_nb.protocol.call import Call, registered_name
from scalable_nb.protocol.messages import (
    AttemptFailed,
    ErrorReport,
    FailureReply,
    ModulesDiffer,
    ModuleSources,
    PermitReply,
    PermitRequest,
    ReplaceReply,
    SourcesRequest,
)
from scalable_nb.protocol.module_sources import unpack_sources
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import Message, call_remote
from scalable_nb.worker.attempt_registry import AttemptEntry, own_registry
from scalable_nb.worker.module_finder import own_module_finder
from scalable_nb.worker.peak_memory import peak_memory_bytes
from scalable_nb.worker.result_cache import TaskResultCache, allowed_names, description

#: Largest pickled exception that is sent as itself.
_MAX_EXCEPTION_BYTES: Final = 1_000_000

_NO_RULES: Final[dict[str, Any]] = {}


def run_attempt(key: Any, call: Call, *inputs: Any) -> Any:
    """Run one attempt of a call in a worker's thread."""
    attempt = _Attempt(key, call)
    try:
        with attempt.registered():
            if attempt.has_stored_result():
                return attempt.result_cache.value
            if not attempt.begin_modules():
                sync(attempt.worker.loop, attempt.adopt_modules)
            function, args, kwargs = attempt.load(inputs)
            if not attempt.terms.idempotent:
                sync(attempt.worker.loop, attempt.acquire_permit)
            return attempt.accept(function(*args, **kwargs))
    except Reschedule:
        raise
    except BaseException as caught:  # noqa: BLE001 - whatever it is, it is recorded and passed on
        error = caught
    # Outside of `except`, so that what is raised does not drag the original along.
    raise sync(attempt.worker.loop, attempt.outcome, error)


async def run_async_attempt(key: Any, call: Call, *inputs: Any) -> Any:
    """Run one attempt of a call whose function is a coroutine function."""
    attempt = _Attempt(key, call)
    try:
        with attempt.registered():
            if attempt.has_stored_result():
                return attempt.result_cache.value
            if not attempt.begin_modules():
                await attempt.adopt_modules()
            function, args, kwargs = attempt.load(inputs)
            if not attempt.terms.idempotent:
                await attempt.acquire_permit()
            return attempt.accept(await function(*args, **kwargs))
    except Reschedule:
        raise
    except BaseException as caught:  # noqa: BLE001 - whatever it is, it is recorded and passed on
        error = caught
    raise await attempt.outcome(error)


class _Attempt:
    def __init__(self, key: Any, call: Call) -> None:
        self.key = key
        self.call = call
        self.worker: Worker = get_worker()
        self.state = self.worker.state.tasks[self.key]
        self.run_id = self.state.run_id
        annotation = TaskAnnotation.from_wire((self.state.annotations or {}).get(ANNOTATION, {}))
        self.terms = annotation.terms
        self.result_cache = TaskResultCache(annotation, call.result_key)
        self.started_at = time()
        self._entry = AttemptEntry()
        self._about: dict[str, Any] = {}
        self._allow: Collection[str] = ()
        self._has_modules = False
        self._is_returned = False

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Register the attempt outside this process while it runs."""
        registry = own_registry()
        if registry is None:
            yield
            return
        name, limit_s = registered_name(self.key), self.terms.timeout_s
        try:
            with registry.register(name, limit_s, self.run_id) as self._entry:
                yield
        finally:
            if self._has_modules:
                own_module_finder().end(self.call.modules)
            if self._is_returned:
                self._entry.remove()

    def has_stored_result(self) -> bool:
        """Return whether a stored result exists, so that the function is not called."""
        is_hit = self.result_cache.is_hit()
        self._attach_facts()
        return is_hit

    def _attach_facts(self) -> None:
        # Travels with the message that the task is done: it costs no message of its own.
        facts = self.result_cache.facts
        if facts is not None:
            self.state.metadata[ANNOTATION] = facts.to_wire()

    def begin_modules(self) -> bool:
        """Return whether this process imports the modules of the call in the call's version."""
        digest = self.call.modules
        if not digest:
            return True
        self._has_modules = own_module_finder().begin(digest)
        return self._has_modules

    async def adopt_modules(self) -> None:
        """Make this process import the modules of the call in the call's version.

        Raises
        ------
        Reschedule
            If it has imported another version. The process is replaced.
        """
        finder, digest = own_module_finder(), self.call.modules
        if not finder.knows(digest):
            request = SourcesRequest(digest)
            reply = ModuleSources.from_wire(await self._ask(Operation.GET_SOURCES, request))
            finder.add(digest, unpack_sources(reply.packed))
        conflict = finder.adopt(digest)
        self._has_modules = conflict is None
        if conflict is None:
            return
        message = ModulesDiffer(
            self.key, self.worker.address, digest, conflict.names, conflict.is_of_calls
        )
        answer = await self._ask(Operation.REPLACE_PROCESS, message)
        if ReplaceReply.from_wire(answer).will_replace:
            self._is_returned = True  # nothing was called: it is no attempt
            raise Reschedule
        self.result_cache.withhold()

    def load(self, inputs: tuple[Any, ...]) -> tuple[Callable[..., Any], Any, Any]:
        """Unpickle the call; the clocks of the execution start after that."""
        function = self.call.load_function()
        args, kwargs = self.call.load_arguments(inputs)
        self._about = description(self.call.about, function, args, kwargs)
        self._allow = allowed_names(function)
        self.started_at = time()
        self._entry.restart_clock()
        return function, args, kwargs

    async def acquire_permit(self) -> None:
        """Make sure that nobody has called the function for this task, nor will.

        Raises
        ------
        UnknownOutcomeError
            When it was called before.
        Reschedule
            When the task is not this worker's any more.
        """
        request = PermitRequest(self.key, self.worker.address, self.run_id)
        reply = PermitReply.from_wire(await self._ask(Operation.ACQUIRE_PERMIT, request))
        if not reply.is_granted:
            raise UnknownOutcomeError(reply.refusal) if reply.refusal else Reschedule()

    def accept(self, result: Any) -> Any:
        """Validate a result and keep it where that was asked for."""
        validate = self.rules.get("validate")
        if validate is not None and not _is_valid(validate, result):
            name = getattr(validate, "__name__", repr(validate))
            raise ResultValidationError(
                f"validate={name} refused the result, a {type(result).__name__}"
            )
        self.result_cache.store_result(
            result,
            {**self._about, "task_id": str(self.key), "duration_s": time() - self.started_at},
            written_since=self.started_at if self._about else None,
            allow=self._allow,
        )
        self._attach_facts()
        return result

    @property
    def rules(self) -> dict[str, Any]:
        """The policy's functions and exception types."""
        return _load_rules(self.terms.code) if self.terms.code else _NO_RULES

    # --- after an exception --------------------------------------------------------

    async def outcome(self, error: BaseException) -> Exception:
        """Report the failed attempt; return what to raise: `Reschedule` or an exception."""
        report = self._describe(error)
        # Without this module's own frame, which would only be in the way.
        own = error.__traceback__
        exception = _transportable(error.with_traceback(own.tb_next if own else None))
        try:
            message = AttemptFailed(
                self.key,
                self.worker.address,
                self.run_id,
                verdict=self._verdict(error),
                error=report,
                exception=_pickle_exception(exception),
            )
            reply = FailureReply.from_wire(await self._ask(Operation.ATTEMPT_FAILED, message))
        except OSError:  # the host is gone, and with it everybody who could decide
            return exception
        if reply.is_recorded:  # otherwise only the registry has it, and is queried for it
            self._entry.remove()
        return Reschedule() if reply.will_retry else exception

    async def _ask(self, operation: Operation, message: Message) -> Any:
        """Call the host, and again if the connection broke: the next one may hold.

        The host's reply to the same message is the same.
        """
        ask = functools.partial(call_remote, self.worker.scheduler, operation, message)
        return await retry(ask, count=4, delay_min=0.1, delay_max=1.0)

    def _verdict(self, error: BaseException) -> str | None:
        return verdict(error, self.rules.get("retry_on", ()), self.rules.get("give_up_on", ()))

    def _describe(self, error: BaseException) -> ErrorReport:
        return ErrorReport(
            failure_class=type(error).__name__,
            error_module=type(error).__module__,
            message=safe_message(error),
            category=str(_category(error)),
            fingerprint=fingerprint_of(error),
            traceback=format_traceback(error),
            started_at=self.started_at,
            duration_s=time() - self.started_at,
            host=os.environ.get("SLURMD_NODENAME") or platform.node(),
            pid=os.getpid(),
            memory_bytes=peak_memory_bytes(),
            memory_limit_bytes=self.worker.memory_manager.memory_limit,
        )


def _category(error: BaseException) -> Category:
    # SystemExit, KeyboardInterrupt: somebody wanted an end, not another attempt.
    return classify(error) if isinstance(error, Exception) else Category.PERMANENT


def _is_valid(validate: Callable[[Any], Any], result: Any) -> bool:
    try:
        return bool(validate(result))
    except Exception as error:
        name = getattr(validate, "__name__", repr(validate))
        raise ResultValidationError(f"validate={name} raised {error!r}") from error


@functools.lru_cache(maxsize=64)
def _load_rules(code: bytes) -> dict[str, Any]:
    rules: dict[str, Any] = pickle.loads(code)
    return rules


# --- exceptions on their way to the client -----------------------------------------


def _transportable(error: BaseException) -> Exception:
    """Return the exception if it survives pickling, else without its chain, else a substitute.

    `SystemExit` and the like are always substituted: they would end the process that receives
    them.
    """
    if not isinstance(error, Exception):
        return _substitute_for(error)
    if _survives(error):
        return error
    substitute = _substitute_for(error)
    bare = error.with_traceback(None)
    bare.__cause__ = bare.__context__ = None  # mostly what cannot be pickled
    return bare if _survives(bare) else substitute


def _substitute_for(error: BaseException) -> RemoteError:
    """Return an error with the texts of one that cannot be pickled."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return RemoteError(name, safe_message(error), format_traceback(error))


def _pickle_exception(error: Exception) -> bytes:
    """Return the exception as the host may have to deliver it."""
    data: bytes = dask_pickle.dumps(error)
    return data


def _survives(error: Exception) -> bool:
    try:
        data = dask_pickle.dumps(error)
        if len(data) > _MAX_EXCEPTION_BYTES:
            return False
        copy = pickle.loads(data)
        # Dask and whoever reads it will ask for both, on the worker and at home.
        return all((str(e), repr(e)) for e in (error, copy)) and _is_alike(copy, error)
    except Exception:  # noqa: BLE001 - pickling runs the user's code, which may raise anything
        return False


def _is_alike(copy: object, error: Exception) -> bool:
    return type(copy).__qualname__ == type(error).__qualname__

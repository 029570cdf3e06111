"""What the manifest and the arguments of ``submit`` together say about a call."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Number
from typing import Any, Final

import dask
from dask.utils import funcname

from scalable_nb.cache.function import CacheableFunction, warn_not_cached, warn_of_input
from scalable_nb.cache.hashing.function_identity import identity_of
from scalable_nb.cache.hashing.value_writers import NotEncodableError
from scalable_nb.cache.invisible_inputs import InvisibleInputs
from scalable_nb.cache.keys import CallKeys, own_result_key
from scalable_nb.client.context import ClientContext
from scalable_nb.client.packing import pack_function
from scalable_nb.client.user_code.code_pickler import PickledCode, pickle_code
from scalable_nb.client.user_code.kernel_sources import PackedModules, pack_modules
from scalable_nb.errors import NotCacheableError, SubmitError, UnknownNameError
from scalable_nb.faults.backoff import Backoff, RetryPolicy
from scalable_nb.faults.policy import TaskPolicy, resolve_policy
from scalable_nb.manifest.schema import Manifest, Task
from scalable_nb.protocol.annotations import TaskAnnotation
from scalable_nb.protocol.messages import BatchMessage

#: Results of a batch with a name are stored in the run folder up to this size, each.
STORED_WITH_A_NAME_BYTES: Final = 1 << 20


class _Unset:
    """The default of an option, so that None and 1 count as given."""

    def __repr__(self) -> str:
        return "<not given>"


UNSET: Any = _Unset()


@dataclass(frozen=True)
class CallOptions:
    """A function, and on what terms it is called.

    Attributes
    ----------
    function : callable
        What a worker calls; it looks for a stored result by itself.
    cacheable : CacheableFunction or None
        The function as given, where it is one.
    task, component, tag : str
        Names of the manifest; empty where none was given.
    wire : dict
        The policy in plain values, and the folder of stored results, for the annotation.
    resources : dict
        Dask resources that a task takes.
    call_keys : CallKeys or None
        Makes the keys of results that are stored by what was called; None for others.
    runs_to_end : bool
        As in `BatchMessage`: whether the batch has a name that the user gave, or is resubmitted.
    is_stored_by_submission : bool
        Whether results are stored for this submission alone, so that they survive a worker, the
        host and the kernel, and answer no other call.
    record_args : bool
        Whether functions and arguments go into the call log.
    policies : tuple of TaskPolicy
        Those of the call and of its task in the manifest.
    retries : int, RetryPolicy or None
        As the call sets them.
    keep_results : bool
        Whether the task of the manifest does.
    """

    function: Callable[..., Any]
    cacheable: CacheableFunction[..., Any] | None
    task: str
    component: str
    tag: str
    wire: dict[str, Any]
    resources: dict[str, float]
    call_keys: CallKeys | None
    runs_to_end: bool = False
    is_stored_by_submission: bool = False
    record_args: bool = True
    policies: tuple[TaskPolicy, ...] = ()
    retries: int | RetryPolicy | None = None
    keep_results: bool = False

    @classmethod
    def resolve(
        cls,
        context: ClientContext,
        func: Callable[..., Any],
        *,
        tag: str | None = None,
        task: str | None = None,
        n: int = 1,
        retries: int | RetryPolicy | None = None,
        policy: TaskPolicy | None = None,
        refresh: bool = False,
        is_named: bool = False,
    ) -> CallOptions:
        """Look names up in the manifest and settle the policy.

        ``refresh``: stored results are passed over, and replaced. Results of a batch that
        ``is_named`` are stored up to a size, where nothing else is said.

        Raises
        ------
        UnknownNameError, PolicyError, SubmitError
        """
        manifest = context.manifest
        component = find_component(manifest, task, tag)
        entry = manifest.tasks[task] if task else None
        task_policy = (
            TaskPolicy(
                retries=entry.retries, timeout_s=entry.timeout_s, idempotent=entry.idempotent
            )
            if entry
            else None
        )
        terms = resolve_policy(
            retries=retries, policy=policy, task=task_policy, defaults=_defaults(manifest)
        )
        if policy is not None and policy.rules:
            terms = replace(terms, code=_pack_rules(policy))
        cacheable = func if isinstance(func, CacheableFunction) else None
        annotation = TaskAnnotation(terms)
        is_stored = False
        call_keys = _call_keys(func, entry)
        if call_keys is not None and cacheable is not None:
            annotation = replace(
                annotation,
                store=str(cacheable.cache_spec.store or context.cache_dir),
                recompute=cacheable.cache_spec.recompute or refresh,
            )
        elif call_keys is not None:
            annotation = replace(annotation, store=str(context.cache_dir), recompute=refresh)
        else:
            is_stored = terms.idempotent and (
                is_named or (entry is not None and entry.keep_results)
            )
            if is_stored or not terms.idempotent:
                annotation = replace(annotation, store=str(context.results_dir))
            if is_stored and not (entry is not None and entry.keep_results):
                annotation = replace(annotation, limit_bytes=STORED_WITH_A_NAME_BYTES)
        if (cacheable is not None and cacheable.cache_spec.compress) or (entry and entry.compress):
            annotation = replace(annotation, compress=True)
        options = cls(
            function=cacheable.compute if cacheable is not None else func,
            cacheable=cacheable,
            task=task or "",
            component=component,
            tag=tag or "",
            wire=annotation.to_wire(),
            resources=_resources(n, context),
            call_keys=call_keys,
            runs_to_end=is_named,
            is_stored_by_submission=is_stored,
            record_args=manifest.defaults.record_args and (entry is None or entry.record_args),
            policies=tuple(each for each in (policy, task_policy) if each is not None),
            retries=retries,
            keep_results=entry is not None and entry.keep_results,
        )
        return options if call_keys is None else options._unless_key_differs(context)

    def _unless_key_differs(self, context: ClientContext) -> CallOptions:
        """Return the options; without a cache if the key may describe other code or data.

        The key is made from the files, and the kernel's versions of edited modules run. The key
        has the kernel's data, and what a worker imports may have other data.
        """
        has_other_data = self._warn_of_imported_data()
        if not self.modules.stale and not has_other_data:
            return self
        terms = TaskAnnotation.from_wire(self.wire).terms
        store = "" if terms.idempotent else str(context.results_dir)
        return replace(self, call_keys=None, wire=TaskAnnotation(terms, store=store).to_wire())

    def _warn_of_imported_data(self) -> bool:
        """Warn if the function uses data that a worker's import makes; return whether it does."""
        opaque = self.cacheable.cache_spec.opaque if self.cacheable is not None else ()
        for variable, kind in self.packed_function.imported_data.items():
            if not issubclass(kind, opaque):
                name = funcname(self.cacheable or self.function)
                error = NotCacheableError(
                    f"{name}() is not cached: {variable}, {kind.__name__}, cannot be sent to "
                    "workers. They import it, and its data may differ from this kernel's. Pass "
                    "the data as an argument, or use `@cacheable(opaque=[...])` if results do "
                    "not depend on them"
                )
                warn_not_cached(self.cacheable or self.function, error)
                return True
        return False

    @property
    def explicit_names(self) -> frozenset[str]:
        """The options that the call or its task sets: entries of `wire`, keep_results and tag."""
        names = set(TaskPolicy(retries=self.retries).changes())
        for policy in self.policies:
            names.update(policy.changes(), ["code"] if policy.rules else [])
        if self.keep_results:
            names.add("keep_results")
        if self.tag:
            names.add("tag")
        return frozenset(names)

    def batch(self, name: str, func: Callable[..., Any]) -> BatchMessage:
        """A new batch of calls on these terms."""
        return BatchMessage(
            batch_id=uuid.uuid4().hex,
            name=name,
            function=funcname(func),
            task=self.task,
            component=self.component,
            tag=self.tag,
            is_async=inspect.iscoroutinefunction(self.function),
            runs_to_end=self.runs_to_end,
        )

    def arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments with the types that a `cacheable` function declares."""
        return self.cacheable.convert(tuple(args), kwargs) if self.cacheable else (args, kwargs)

    def result_key(
        self,
        key: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        batch_id: str = "",
        *,
        has_inputs: bool = False,
    ) -> str:
        """Under which the result of a task is stored; empty where it is not.

        What is not idempotent is stored by the task's own key: Dask may ask for a lost result
        again, but the function must not be called for it.
        """
        if self.call_keys is not None:
            # Of a future the value is not known, so neither is which call this is.
            return "" if has_inputs else self.cache_key(args, kwargs)
        if "store" not in self.wire:
            return ""
        return own_result_key(key, batch_id if self.is_stored_by_submission else "")

    def cache_key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the key of a cached call; warn and return an empty string if it has no key."""
        if self.call_keys is None:
            return ""
        try:
            key = self.call_keys.key(args, kwargs)
        except NotCacheableError as error:
            warn_not_cached(self.cacheable or self.function, error)
            return ""
        found = self.invisible_inputs.of_call(args, kwargs)
        if found is not None:
            warn_of_input(self.cacheable or self.function, "argument", found)
        return key

    @functools.cached_property
    def invisible_inputs(self) -> InvisibleInputs:
        """Finds inputs of cached calls that their keys cannot contain.

        The first use issues the warnings about the code.
        """
        assert self.call_keys is not None
        allow = self.cacheable.cache_spec.allow if self.cacheable is not None else ()
        inputs = InvisibleInputs(self.call_keys, allow)
        warn_of_input(self.cacheable or self.function, "code", inputs.of_code())
        return inputs

    @functools.cached_property
    def packed_function(self) -> PickledCode:
        """The function, pickled.

        Raises
        ------
        SubmitError
            If it cannot be pickled.
        """
        return pack_function(self.function)

    @functools.cached_property
    def modules(self) -> PackedModules:
        """The user's modules that the function may import."""
        return pack_modules(self.packed_function.imports)

    def check_unedited(self) -> None:
        """Raise if modules were edited since they were packed: keys may be of another version.

        Raises
        ------
        SubmitError
        """
        if self.modules.digest and self.modules != pack_modules(self.packed_function.imports):
            name = funcname(self.cacheable or self.function)
            raise SubmitError(
                f"a module that {name!r} imports was edited while its calls were submitted, and "
                "none of them was sent. Submit them again"
            )

    @functools.cached_property
    def identity(self) -> str:
        """Digest of the function, in hex; empty if it cannot be computed."""
        if self.call_keys is not None:
            return self.call_keys.identity.hex()
        try:
            return identity_of(self.function).hex()
        except (NotEncodableError, OSError):
            return ""


def find_component(manifest: Manifest, task: str | None, tag: str | None) -> str:
    """The component that a tag names, else that of the task; empty where neither says.

    Raises
    ------
    UnknownNameError
        When the manifest has no such task, tag or component.
    """
    hint = "`scalable.yaml` defines them; `%scalable init` writes one to start from."
    if task is not None and task not in manifest.tasks:
        raise UnknownNameError("task", task, manifest.tasks, hint)
    if tag is None:
        return (manifest.tasks[task].component or "") if task else ""
    if tag in manifest.components:
        return tag
    tags = {name: key for key, item in manifest.components.items() for name in item.tags}
    if tag not in tags:
        raise UnknownNameError("tag or component", tag, [*manifest.components, *tags], hint)
    return tags[tag]


def _call_keys(func: Callable[..., Any], entry: Task | None) -> CallKeys | None:
    """Return the key maker of a cached function; warn and return None if it cannot have one."""
    try:
        if isinstance(func, CacheableFunction):
            return func.call_keys()
        if entry is not None and entry.cache:
            return CallKeys(func, version=entry.version)
    except NotCacheableError as error:
        warn_not_cached(func, error)
    return None


def _defaults(manifest: Manifest) -> TaskPolicy:
    defaults = manifest.defaults
    return TaskPolicy(retries=defaults.retries, backoff=Backoff(**defaults.backoff.model_dump()))


def _resources(n: int, context: ClientContext) -> dict[str, float]:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SubmitError(f"n={n!r} is not a number of slots; expected an integer from 1, as n=1")
    if n == 1:
        return {}
    slots = context.worker_threads
    if n > slots:
        raise SubmitError(
            f"n={n} slots, but a worker of target {context.target_name!r} has {slots}; raise "
            "`threads_per_worker:` in scalable.yaml"
        )
    return {"slots": n}


def _pack_rules(policy: TaskPolicy) -> bytes:
    try:
        return pickle_code(policy.rules).pickled
    except Exception as error:
        raise SubmitError(
            f"the rules of the policy (retry_on, give_up_on, validate) cannot be sent to a "
            f"worker: {error}"
        ) from error


# --- the arguments of `submit` and `map` ----------------------------------------------


def check_callable(func: Any) -> None:
    """Raise unless the first argument is callable."""
    if not callable(func):
        raise SubmitError(
            f"{func!r} (a {type(func).__name__}) is not callable; expected a function first, "
            "then its arguments, as in client.submit(function, 1, 2)"
        )


def check_places(workers: Any, allow_other_workers: Any) -> Any:
    """Return the workers as a list; raise if they contradict the other option, as Dask does."""
    if allow_other_workers and workers is None:
        raise ValueError(
            f"allow_other_workers={allow_other_workers!r} says nothing without workers=; expected "
            "both, as in workers=['tcp://10.0.0.7:40001'], allow_other_workers=True"
        )
    return [workers] if isinstance(workers, str | Number) else workers


def with_annotated_retries(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options, with the retries of `dask.annotate` unless the call has its own."""
    retries = dask.get_annotations().get("retries")
    if retries is None or "retries" in given or given.get("policy") is not None:
        return given
    return {**given, "retries": retries}


def given_options(func: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Return the options that were given; none may be named like a parameter of the function."""
    given = {name: value for name, value in options.items() if value is not UNSET}
    try:
        parameters = inspect.signature(func).parameters if given else {}
    except (TypeError, ValueError):
        return given
    for name in given:
        if name in parameters:
            raise SubmitError(
                f"{name}= is an option of submit and map, and {funcname(func)}() has a parameter "
                f"of that name. To pass it to the function, bind it first: "
                f"functools.partial({funcname(func)}, {name}=...)"
            )
    return given

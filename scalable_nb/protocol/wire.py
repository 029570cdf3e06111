"""Encoding of messages: plain values, whose types are checked on arrival."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import (
    Any,
    Final,
    NamedTuple,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from scalable_nb.errors import ProtocolError
from scalable_nb.protocol.operations import Operation

M = TypeVar("M", bound="Message")

_Decoder = Callable[[Any], Any]

#: None: values of the type are sent as they are.
_Encoder = Callable[[Any], Any] | None


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Message:
    """Base of all messages: frozen dataclasses whose fields are plain values or messages.

    A subclass needs no decorator. It becomes a dataclass with its first use: a process uses a few
    of all messages, and Python takes 30 ms to generate the methods of all.

    Types that are checked: the built-in ones, enums, typed dicts, other messages,
    ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[K, V]``, unions and ``Any``. Task keys are ``Any``:
    Dask's may be tuples.
    """

    def __init__(self, *args: Any, **values: Any) -> None:
        _make_dataclass(type(self))
        self.__init__(*args, **values)  # type: ignore[misc]  # that of the dataclass

    def to_wire(self) -> dict[str, Any]:
        """Return the fields by name, as values that msgpack can carry."""
        return {
            name: getattr(self, name) if encode is None else encode(getattr(self, name))
            for name, (_, encode, _, _) in _fields_of(type(self)).items()
        }

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """Return the message that `to_wire` wrote.

        Raises
        ------
        ProtocolError
            If a field is missing, unknown or of the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ProtocolError(f"{cls.__name__} is {values!r:.80}; expected a mapping")
        known = _fields_of(cls)
        for name in values:
            if name not in known:
                raise ProtocolError(f"{cls.__name__} has no field {name!r}; it has {list(known)}")
        arguments = {}
        for name, (decode, _, expected, is_required) in known.items():
            if name in values:
                try:
                    arguments[name] = decode(values[name])
                except _MismatchError as error:
                    raise ProtocolError(
                        f"{cls.__name__}.{name} is {error}; expected {expected}"
                    ) from None
            elif is_required:
                raise ProtocolError(f"{cls.__name__}.{name} is missing; expected {expected}")
        return cls(**arguments)


def call_remote(remote: Any, operation: Operation, message: Message) -> Any:
    """Call an operation of another process; returns what is to be awaited.

    Parameters
    ----------
    remote : distributed.rpc or PooledRPCCall
        The other process.
    operation : Operation
    message : Message
    """
    return getattr(remote, operation.value)(**message.to_wire())


def stream_message(operation: Operation, message: Message) -> dict[str, Any]:
    """Return a message for a stream of Dask's, on which nothing is answered."""
    return {"op": operation.value, **message.to_wire()}


def answering(message: type[M], handle: Callable[[M], Any]) -> Callable[..., Any]:
    """Return a handler for Dask that decodes the message and encodes the reply.

    Parameters
    ----------
    message : type of Message
    handle : callable
        Gets the message; may be a coroutine function.
    """

    def answer(**values: Any) -> Any:
        return _encode_reply(handle(message.from_wire(values)))

    async def answer_later(**values: Any) -> Any:
        return _encode_reply(await handle(message.from_wire(values)))

    return answer_later if inspect.iscoroutinefunction(handle) else answer


def _encode_reply(reply: Any) -> Any:
    return reply.to_wire() if isinstance(reply, Message) else reply


def receiving(message: type[M], handle: Callable[[str, M], None]) -> Callable[..., None]:
    """Return a handler for a stream of Dask's that decodes the message.

    Parameters
    ----------
    message : type of Message
    handle : callable
        Gets the sender, a client's id or a worker's address, and the message.
    """

    def receive(*, client: str = "", worker: str = "", **values: Any) -> None:
        handle(client or worker, message.from_wire(values))

    return receive


# --- types ---------------------------------------------------------------------------


class _MismatchError(Exception):
    """A value is not of the type of its field."""


class _Field(NamedTuple):
    decode: _Decoder
    encode: _Encoder
    expected: str
    is_required: bool


def _make_dataclass(message: type[Message]) -> None:
    with _lock:
        if not is_dataclass(message):
            dataclass(frozen=True)(message)


_lock: Final = threading.Lock()


def _fields_of(message: type[Message]) -> dict[str, _Field]:
    if message not in _known_fields:
        _make_dataclass(message)
        _known_fields[message] = _inspect(message)
    return _known_fields[message]


_known_fields: dict[type[Message], dict[str, _Field]] = {}


def _inspect(message: type[Message]) -> dict[str, _Field]:
    hints = get_type_hints(message)
    return {
        item.name: _Field(
            _decoder(hints[item.name]),
            _encoder(hints[item.name]),
            str(item.type),
            item.default is MISSING and item.default_factory is MISSING,
        )
        for item in fields(message)  # type: ignore[arg-type] # subclasses are dataclasses
    }


# --- encoders ------------------------------------------------------------------------


def _encoder(hint: Any) -> _Encoder:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _encoder_of_union([part for part in parts if part is not NoneType])
    if origin is tuple and parts[1:] == (...,):
        encode = _encoder(parts[0])
        return functools.partial(_encode_all, encode) if encode is not None else None
    if origin is tuple:
        return _if_any(_encode_each, tuple(map(_encoder, parts)))
    if origin is dict:
        return _if_any(_encode_dict, tuple(map(_encoder, parts)))
    if isinstance(hint, type) and issubclass(hint, Message):
        return hint.to_wire
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _value_of
    return None


def _encoder_of_union(parts: list[Any]) -> _Encoder:
    encode = _encoder(parts[0])
    if len(parts) == 1:
        return functools.partial(_encode_optional, encode) if encode is not None else None
    if any(_encoder(part) is not None for part in parts):
        raise TypeError(f"a union of {parts} cannot be encoded: only one type, or None")
    return None


def _if_any(
    encode: Callable[[tuple[_Encoder, ...], Any], Any], encoders: tuple[_Encoder, ...]
) -> _Encoder:
    return functools.partial(encode, encoders) if any(encoders) else None


def _encode_optional(encode: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else encode(value)


def _encode_all(encode: Callable[[Any], Any], value: Any) -> list[Any]:
    return [encode(item) for item in value]


def _encode_each(encoders: tuple[_Encoder, ...], value: Any) -> list[Any]:
    return [_encode(encode, item) for encode, item in zip(encoders, value, strict=True)]


def _encode_dict(encoders: tuple[_Encoder, ...], value: Any) -> dict[Any, Any]:
    of_key, of_value = encoders
    return {_encode(of_key, key): _encode(of_value, each) for key, each in value.items()}


def _encode(encode: _Encoder, value: Any) -> Any:
    return value if encode is None else encode(value)


def _value_of(member: Any) -> Any:
    return member.value


# --- decoders ------------------------------------------------------------------------


def _decoder(hint: Any) -> _Decoder:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return _as_is
    if origin in (Union, UnionType):
        return functools.partial(_decode_any_of, tuple(map(_decoder, parts)))
    if origin is tuple and parts[1:] == (...,):
        return functools.partial(_decode_all, parts[0], _decoder(parts[0]))
    if origin is tuple:
        return functools.partial(_decode_each, tuple(map(_decoder, parts)))
    if origin is dict:
        return functools.partial(_decode_dict, *map(_decoder, parts))
    if is_typeddict(hint):
        return functools.partial(_decode_typed_dict, hint.__required_keys__)
    if issubclass(hint, Message):
        return functools.partial(_decode_message, hint)
    if issubclass(hint, Enum):
        return functools.partial(_decode_member, hint)
    if hint is float:
        return functools.partial(_decode_plain, (float, int))
    return functools.partial(_decode_plain, (hint,))


def _as_is(value: Any) -> Any:
    return value


def _decode_plain(types: tuple[type, ...], value: Any) -> Any:
    # True is an int to Python, and a mistake in a message.
    if isinstance(value, types) and (type(value) is not bool or bool in types):
        return value
    raise _mismatch(value)


def _decode_any_of(decoders: tuple[_Decoder, ...], value: Any) -> Any:
    for decode in decoders:
        try:
            return decode(value)
        except _MismatchError:
            continue
    raise _mismatch(value)


def _decode_all(kind: Any, decode: _Decoder, value: Any) -> tuple[Any, ...]:
    items = _items(value)
    # Keys and previews of a hundred thousand tasks: not a call for each of them.
    if kind is Any or {kind}.issuperset(map(type, items)):
        return items
    return tuple(map(decode, items))


def _decode_each(decoders: tuple[_Decoder, ...], value: Any) -> tuple[Any, ...]:
    items = _items(value)
    if len(items) != len(decoders):
        raise _mismatch(value)
    return tuple(decode(item) for decode, item in zip(decoders, items, strict=True))


def _items(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _mismatch(value)
    return tuple(value)


def _decode_dict(decode_key: _Decoder, decode_value: _Decoder, value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _mismatch(value)
    return {decode_key(key): decode_value(each) for key, each in value.items()}


def _decode_typed_dict(required: frozenset[str], value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not required <= value.keys():
        raise _mismatch(value)
    return dict(value)


def _decode_message(message: type[Message], value: Any) -> Message:
    if isinstance(value, message):
        return value
    if not isinstance(value, Mapping):
        raise _mismatch(value)
    return message.from_wire(value)


def _decode_member(members: type[Enum], value: Any) -> Enum:
    try:
        return members(value)
    except ValueError:
        raise _mismatch(value) from None


def _mismatch(value: Any) -> _MismatchError:
    return _MismatchError(f"a {type(value).__name__}, {value!r:.80}")

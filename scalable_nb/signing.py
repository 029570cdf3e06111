"""Keyed checksums, which show that a process of this user wrote a file.

Unpacking an archive makes its files the user's, so no check of owners tells them from files that
the user's own processes wrote. What is unpickled later, or names an address or a job, carries a
signature: a keyed BLAKE2b over its kind, its name and its bytes, so valid bytes fail elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import threading
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

from scalable_nb.errors import SettingsError
from scalable_nb.paths import RunPaths, private_folder, user_key_file, write_private
from scalable_nb.trusted_paths import find_flaw, owner_text, read_regular, refusal

logger = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
SIGNATURE_BYTES: Final = 16
KEY_ID_BYTES: Final = 8

_SIGNATURE: Final = "signature"

#: What decides where the user's key is.
_PLACE_VARIABLES: Final = ("SCALABLE_KEY_FILE", "XDG_CONFIG_HOME", "HOME")


class Kind(StrEnum):
    """The kinds of signed records; bytes of one kind are never valid as another."""

    RESULT = "result"
    CALL = "call"
    MANIFEST = "manifest"
    STATE = "session"
    JOB = "job"


class SigningKey:
    """A secret, and the signatures made with it.

    Parameters
    ----------
    secret : bytes
        32 random bytes.
    is_lasting : bool
        Whether later processes of the user have it, too.

    Attributes
    ----------
    key_id : bytes
        Names the key in files, and does not reveal it.
    """

    def __init__(self, secret: bytes, *, is_lasting: bool = True) -> None:
        self.secret = secret
        self.is_lasting = is_lasting
        self.key_id = hashlib.blake2b(
            key=secret, digest_size=KEY_ID_BYTES, person=b"key id"
        ).digest()
        # Keying costs as much as signing a short record.
        self._states = {
            kind: hashlib.blake2b(key=secret, digest_size=SIGNATURE_BYTES, person=kind.encode())
            for kind in Kind
        }

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key for signatures is never pickled")

    def sign(self, kind: Kind, name: bytes, data: bytes) -> bytes:
        """Return the signature of a record.

        Parameters
        ----------
        kind : Kind
        name : bytes
            Where the record belongs.
        data : bytes
            The record, or digests of its parts.
        """
        state = self._states[kind].copy()
        state.update(len(name).to_bytes(4, "little") + name + data)
        return state.digest()

    def has_signed(self, signature: bytes, kind: Kind, name: bytes, data: bytes) -> bool:
        """Return whether a signature of a record was made with this key."""
        return hmac.compare_digest(signature, self.sign(kind, name, data))

    def signed(self, kind: Kind, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a JSON object with their signature.

        Parameters
        ----------
        kind : Kind
        name : str
            Where the object belongs.
        values : mapping
            As JSON gives them back.
        """
        signature = self.sign(kind, name.encode(), _canonical(values))
        return {**values, _SIGNATURE: signature.hex()}

    def is_signed(self, kind: Kind, name: str, values: Mapping[str, Any]) -> bool:
        """Return whether a JSON object was signed with this key."""
        try:
            signature = bytes.fromhex(values[_SIGNATURE])
        except (KeyError, TypeError, ValueError):
            return False
        return self.has_signed(signature, kind, name.encode(), _canonical(values))


def _canonical(values: Mapping[str, Any]) -> bytes:
    unsigned = {name: value for name, value in values.items() if name != _SIGNATURE}
    return json.dumps(unsigned, sort_keys=True).encode()


def own_key() -> SigningKey:
    """Return the key of this process: that of its session, or the user's, made on first use.

    Without a place for it, the key lasts as long as the process and its session.

    Raises
    ------
    SettingsError
        If the file does not contain a key, other users can read it, or ``SCALABLE_KEY_FILE``
        names a file that cannot be made.
    """
    if _session_keys:
        return _session_keys[0]
    place = tuple(map(os.environ.get, _PLACE_VARIABLES))
    key = _user_keys.get(place)
    if key is None:
        with _lock:
            if place not in _user_keys:
                _user_keys[place] = _load_or_create(user_key_file())
            key = _user_keys[place]
    return key


def adopt_key(secret: bytes) -> None:
    """Make the key of a session that of this process, which works for that session alone."""
    _session_keys[:] = [SigningKey(secret)]


def hand_over_key(paths: RunPaths) -> str:
    """Return the path of the key file for the host that is about to start.

    A key that is in no file is left in the run folder, from which the host removes it.
    """
    key = own_key()
    if not key.is_lasting:
        write_private(paths.handed_over_key, key.secret.hex().encode())
    return str(user_key_file())


def take_over_key(paths: RunPaths, key_file: str) -> None:
    """Adopt the key of the kernel that started this host.

    Raises
    ------
    SettingsError
        If it cannot be read, as when the machine of the host has another home folder.
    """
    try:
        secret = _parse(paths.handed_over_key)
    except FileNotFoundError:
        try:
            secret = _load(Path(key_file))
        except OSError as error:
            raise SettingsError(
                f"the key for signatures {key_file!r} cannot be read on this machine: {error}. Set "
                "SCALABLE_KEY_FILE to a file that the machine of the notebook has, too"
            ) from error
    else:
        paths.handed_over_key.unlink()
    adopt_key(secret)


_lock: Final = threading.Lock()
_session_keys: Final[list[SigningKey]] = []
_user_keys: Final[dict[tuple[str | None, ...], SigningKey]] = {}


# --- the file ------------------------------------------------------------------------


def _load_or_create(path: Path) -> SigningKey:
    try:
        return SigningKey(_load(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        return _temporary(path, error)
    try:
        private_folder(path.parent)
        _create(path, secrets.token_bytes(SECRET_BYTES))
        return SigningKey(_load(path))
    except OSError as error:
        return _temporary(path, error)


def _temporary(path: Path, error: OSError) -> SigningKey:
    if os.environ.get("SCALABLE_KEY_FILE"):
        raise SettingsError(f"SCALABLE_KEY_FILE={str(path)!r} cannot be used: {error}") from error
    logger.warning(
        "the key for signatures cannot be kept in %s (%s): results that are cached from now on are "
        "not used after this session. Set SCALABLE_KEY_FILE to a file in a folder of yours.",
        path,
        error,
    )
    return SigningKey(secrets.token_bytes(SECRET_BYTES), is_lasting=False)


def _load(path: Path) -> bytes:
    """Return the secret in a file.

    Raises
    ------
    FileNotFoundError, PermissionError
    SettingsError
        If other users can read or replace the file, or it does not contain a key.
    """
    info = path.stat()
    flaw = find_flaw(path)
    if flaw is not None:
        raise SettingsError(refusal(path, flaw, "Set SCALABLE_KEY_FILE to another file."))
    if info.st_uid != os.getuid():
        raise SettingsError(
            f"the key file {str(path)!r} belongs to {owner_text(info.st_uid)}, not to you: set "
            "SCALABLE_KEY_FILE to another file; it is made on first use"
        )
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"the key file {str(path)!r} can be read by others (mode "
            f"{stat.S_IMODE(info.st_mode):04o}), who may know the key: run `rm {path}`; a new key "
            "is made, and `scalable cache trust` signs what was signed with the old one"
        )
    return _parse(path)


def _parse(path: Path) -> bytes:
    text = read_regular(path, 1 << 12).decode(errors="replace").strip()
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise SettingsError(
            f"the key file {str(path)!r} does not contain a key: expected {2 * SECRET_BYTES} hex "
            f"digits. Run `rm {path}`; a new key is made on first use"
        )
    return secret


def _create(path: Path, secret: bytes) -> None:
    """Write a key file whole, unless another process did so first."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    write_private(part, f"{secret.hex()}\n".encode())
    try:
        os.link(part, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

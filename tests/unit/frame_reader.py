"""What a page makes of frames, in Python."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np


class FrameReader:
    """A table as a page holds it."""

    def __init__(self) -> None:
        self.seq = -1
        self.stream = ""
        self.rows: list[dict[str, Any]] = []
        self.strings = [""]

    def read(self, data: bytes) -> bool:
        """Take in a frame; False where one is missing before it."""
        length = int.from_bytes(data[:4], "little")
        header = json.loads(data[4 : 4 + length])
        body = data[4 + length :]
        assert (4 + length) % 8 == 0
        if header["packed"]:
            body = zlib.decompress(body)
        if header["base"] is None:
            self.rows, self.strings = [], [""]
        elif header["stream"] != self.stream or header["base"] > self.seq:
            return False
        self.rows += [{"label": ""} for _ in range(header["size"] - len(self.rows))]
        self._apply(header, _sections(header, body))
        self.stream, self.seq = header["stream"], header["seq"]
        return True

    def _apply(self, header: dict[str, Any], sections: dict[str, Any]) -> None:
        numbers = sections.pop("rows").tolist()
        labels, strings = sections.pop("labels"), sections.pop("strings")
        named = sections.pop("named", np.arange(len(labels))).tolist()
        for name, values in sections.items():
            for number, value in zip(numbers, values.tolist(), strict=True):
                self.rows[number][name] = value
        for number, label in zip(named, labels, strict=True):
            self.rows[number]["label"] = label
        first = header["first_string"]
        self.strings[first : first + len(strings)] = strings

    def text(self, row: int, column: str) -> str:
        """The string a coded column holds in a row."""
        return self.strings[self.rows[row].get(column, 0)]


def _sections(header: dict[str, Any], body: bytes) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    at = 0
    for name, code, length in header["sections"]:
        part = body[at : at + length]
        sections[name] = json.loads(part) if code == "J" else np.frombuffer(part, code)
        at += length + (-length % 8)
    assert at == len(body)
    return sections

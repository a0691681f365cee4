"""The files that an ONNX graph takes its constants from, read without the ``onnx`` package.

A tensor with external data names a file, and whoever loads the graph opens that file, wherever the
name leads. So the names are compared with the manifest before a graph is loaded.

An ONNX file is a message of Protocol Buffers: fields, each a tag and a value. The lowest three bits
of a tag are the kind of the value, the others the number of the field. Messages and strings have
the kind 2, with their length before them.
"""

from __future__ import annotations

from collections.abc import Iterator

_LOCATION = b"location"
"""Key of the file's name in the external data of a tensor."""
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
    "ExternalData": {},
}
"""Messages of ``onnx.proto`` that lead to external data, by name without "Proto": the numbers of
the fields that do, and the messages in these."""
_KEY, _VALUE = 1, 2
"""Fields of an entry of external data."""


def external_files(model: bytes) -> set[str]:
    """Names of the files that an ONNX model refers to, as they stand in it.

    Args:
        model: content of the ONNX file.

    Raises:
        ValueError: if it is not a message of Protocol Buffers.
    """
    names: set[str] = set()
    left = [("Model", 0, len(model))]
    while left:
        kind, begin, end = left.pop()
        inner = _MESSAGES[kind]
        entry: dict[int, bytes] = {}
        for number, first, last in _fields(model, begin, end):
            if number in inner:
                left.append((inner[number], first, last))
            elif kind == "ExternalData":
                entry[number] = model[first:last]
        if entry.get(_KEY) == _LOCATION:
            names.add(entry.get(_VALUE, b"").decode("utf-8", "backslashreplace"))
    return names


def _fields(model: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Fields of the message from ``at`` to ``end`` that are messages or strings: number, range."""
    while at < end:
        tag, at = _varint(model, at)
        kind = tag & 7
        if tag >> 32:  # which some readers cut to 32 bits
            raise ValueError("it has a field of a number that does not exist")
        if kind == 2:
            size, at = _varint(model, at)
            yield tag >> 3, at, at + size
            at += size
        elif kind == 0:
            _, at = _varint(model, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:  # groups, which ONNX does not have
            raise ValueError(f"it has a field of kind {kind}")
        if at > end:
            raise ValueError("it is cut off")


def _varint(model: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits in each byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(model):
            raise ValueError("it is cut off")
        byte = model[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("it has a number of more than 64 bits")

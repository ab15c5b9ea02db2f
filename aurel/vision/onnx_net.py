"""Run an ONNX file on pictures of any size, in any process and thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Numbers of the fields in the messages of ONNX (onnx.proto).
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_VALUE_INFO_TAG = 13 << 3 | 2
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIMENSION = 1, 2, 1, 2, 1
_INITIALIZER_NAME = 8
_DIMENSION_VALUE_TAG, _DIMENSION_DENOTATION_TAG = 1 << 3, 3 << 3 | 2
_LENGTH_DELIMITED = 2


class OnnxNet:
    """A network in an ONNX file, as a function of arrays.

    The session of onnxruntime is made at the first call in each process, so an object can be
    pickled, and used after a fork. It uses as many threads as torch does at that moment.

    Args:
        path: the file. Its inputs and outputs take any size where `free` dimensions are given.
        free: dimensions of inputs and outputs whose size in the file is ignored.
    """

    def __init__(self, path: Path, free: tuple[int, ...] = ()) -> None:
        self.path = path
        self.free = free
        self._session: tuple[int, Any] | None = None

    def __call__(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the outputs of the network for its only input."""
        session = self._of_this_process()
        return session.run(None, {session.get_inputs()[0].name: x})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def _of_this_process(self) -> Any:
        if self._session is None or self._session[0] != os.getpid():
            self._session = os.getpid(), self._new_session()
        return self._session[1]

    def _new_session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        content = with_constants(with_free_sizes(self.path.read_bytes(), self.free))
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def with_free_sizes(content: bytes, free: tuple[int, ...]) -> bytes:
    """Return the ONNX file with some dimensions of its inputs and outputs of unknown size.

    The length of the file stays the same: the size of a dimension is overwritten by an empty
    denotation, which has no effect.
    """
    changed = bytearray(content)
    for start, end in _below(content, _MODEL_GRAPH):
        for number, _, *value in _fields(content, start, end):
            if number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                for index, dimension in enumerate(_dimensions(content, *value)):
                    if index in free and content[dimension[0]] == _DIMENSION_VALUE_TAG:
                        _overwrite_size(changed, *dimension)
    return bytes(changed)


def with_constants(content: bytes) -> bytes:
    """Return the ONNX file without the inputs that have initial values, which become constants.

    Files of old exporters list all weights as inputs, so that a runtime may not merge batch
    normalization into convolutions. The length of the file stays the same: the inputs are
    declared as intermediate values.
    """
    changed = bytearray(content)
    for start, end in _below(content, _MODEL_GRAPH):
        names: set[bytes] = set()
        for item in _below(content, _GRAPH_INITIALIZER, start, end):
            names.update(content[a:b] for a, b in _below(content, _INITIALIZER_NAME, *item))
        for number, tag, *value in _fields(content, start, end):
            if number == _GRAPH_INPUT:
                name = next(_below(content, _VALUE_NAME, *value))
                if content[slice(*name)] in names:
                    changed[tag] = _VALUE_INFO_TAG
    return bytes(changed)


def _overwrite_size(content: bytearray, start: int, end: int) -> None:
    content[start] = _DIMENSION_DENOTATION_TAG
    content[start + 1] = end - start - 2
    content[start + 2 : end] = b"?" * (end - start - 2)


def _dimensions(content: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    for kind in _below(content, _VALUE_TYPE, start, end):
        for tensor in _below(content, _TYPE_TENSOR, *kind):
            for shape in _below(content, _TENSOR_SHAPE, *tensor):
                yield from _below(content, _SHAPE_DIMENSION, *shape)


def _below(
    content: bytes, field: int, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int]]:
    """Yield start and end of the values of a field in a protobuf message."""
    for number, _, *value in _fields(content, start, len(content) if end is None else end):
        if number == field:
            yield value[0], value[1]


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number, the position of the tag, and start and end of the value of each field."""
    while start < end:
        tag = start
        key, start = _varint(content, start)
        length = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == _LENGTH_DELIMITED:
            length, start = _varint(content, start)
        elif length is None:
            length = _varint(content, start)[1] - start
        yield key >> 3, tag, start, start + length
        start += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return the number that starts at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position

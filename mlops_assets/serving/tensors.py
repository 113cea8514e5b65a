"""Tensors of the Open Inference Protocol: bytes of a request or reply to columns of values and back.

Knows the protocol's JSON form and its binary extension (`binary_tensor_data`: values behind the JSON,
whose length a header tells). Which tensors a model has is left to `open_inference`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from mlops_assets.serving.problems import Problem, invalid

PREFIX = "/v2"  # of the protocol's routes
HEADER_LENGTH = "Inference-Header-Content-Length"
Datatype = Literal["BYTES", "FP32", "INT64"]


class OutputParameters(BaseModel, extra="forbid"):
    """Of one wanted output."""

    binary_data: bool | None = None


class WantedOutput(BaseModel, extra="forbid"):
    """One output by its name."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InputParameters(BaseModel, extra="forbid"):
    """Of one input. `binary_data_size`: bytes of its values behind the JSON."""

    binary_data_size: int | None = Field(None, ge=0)
    content_type: Literal["str"] | None = None


class InputTensor(BaseModel, extra="forbid"):
    """One input; its values stand in `data` or behind the JSON."""

    name: str
    shape: list[Annotated[int, Field(ge=0)]]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: list[str] | None = None


class RequestParameters(BaseModel, extra="forbid"):
    """Of the whole request. What cannot be honoured (sequences, priorities) is refused, not ignored."""

    binary_data_output: bool = False


class InferRequest(BaseModel, extra="forbid"):
    """An inference request's JSON."""

    id: str | None = Field(None, max_length=256)
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor]
    outputs: list[WantedOutput] | None = None


@dataclass(frozen=True)
class OutputTensor:
    """One output; `values` are str for BYTES, else numbers, flat in row order."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    values: Sequence[Any]

    def packed(self) -> bytes:
        """The values as the binary extension has them (little-endian)."""
        if self.datatype == "BYTES":
            encoded = [value.encode() for value in self.values]
            return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
        return np.asarray(self.values, dtype="<f4" if self.datatype == "FP32" else "<i8").tobytes()


def bad_request(detail: str) -> Problem:
    """What the protocol answers to a request that it cannot make sense of."""
    return Problem(HTTPStatus.BAD_REQUEST, detail)


def read_request(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, list[str]]]:
    """A request, and its inputs' strings by name.

    Args:
        body: JSON, and the binary values of the inputs that say so, in their order.
        header_length: bytes of the JSON, from the header; None: all of the body.

    Raises:
        Problem: 400, it does not follow the protocol.
    """
    length = json_length(header_length, len(body))
    try:
        request = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        raise bad_request(invalid(error.errors()).detail) from error
    columns: dict[str, list[str]] = {}
    rest = body[length:]
    for tensor in request.inputs:
        if tensor.name in columns:
            raise bad_request(f"input {tensor.name!r} is given twice")
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise bad_request(f"input {tensor.name!r} needs either data or binary_data_size")
        if size is not None and size > len(rest):
            raise bad_request(f"input {tensor.name!r} has {size} binary bytes, but {len(rest)} are left in the body")
        columns[tensor.name] = tensor.data if tensor.data is not None else unpacked(rest[:size], tensor.name)
        rest = rest[size or 0 :]
    if rest:
        raise bad_request(f"{len(rest)} bytes at the end of the body belong to no input")
    return request, columns


def unpacked(packed: bytes, name: str) -> list[str]:
    """The strings of a binary BYTES tensor, each behind its length (4 bytes, little-endian).

    >>> unpacked(bytes([2, 0, 0, 0]) + b"hi", "text")
    ['hi']

    Raises:
        Problem: 400, a length does not fit, or the bytes are no UTF-8.
    """
    strings: list[str] = []
    at = 0
    while at < len(packed):
        end = at + 4 + int.from_bytes(packed[at : at + 4], "little")
        if end > len(packed) or at + 4 > len(packed):
            raise bad_request(f"input {name!r}, row {len(strings)}: its length reaches beyond the tensor")
        try:
            strings.append(packed[at + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise bad_request(f"input {name!r}, row {len(strings)}: is not UTF-8") from error
        at = end
    return strings


def write_reply(
    head: dict[str, Any], outputs: Sequence[OutputTensor], binary: set[str]
) -> tuple[bytes, dict[str, str]]:
    """A reply's body and headers; the outputs named in `binary` stand behind the JSON."""
    documents, tail = [], b""
    for output in outputs:
        document: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if output.name in binary:
            packed = output.packed()
            document["parameters"] = {"binary_data_size": len(packed)}
            tail += packed
        else:
            document["data"] = list(output.values)
        documents.append(document)
    text = json.dumps({**head, "outputs": documents}).encode()
    if not binary:
        return text, {"content-type": "application/json"}
    return text + tail, {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}


def json_length(given: str | None, total: int) -> int:
    """How many of a body's `total` bytes are JSON, as the header says, if it was given.

    Raises:
        Problem: 400, it says what cannot be.
    """
    if given is None:
        return total
    if not (given.isascii() and given.isdigit() and len(given) < 10 and int(given) <= total):
        raise bad_request(f"{HEADER_LENGTH} must be the number of JSON bytes, at most the body's {total}")
    return int(given)

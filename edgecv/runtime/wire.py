"""Protobuf's wire format, as far as reading an ONNX file takes it; the file may be hostile.

A message is decoded one level at a time, by a table of its fields: nothing here calls itself, so nested bytes cost
nothing until someone asks for them. What readers may understand differently is refused, lest a file be checked as one
model and run as another: a single value given twice, numbers wider than their field, groups, values of another type
than the table says.

Source: protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_FIELDS = 2_000_000
"""Fields read from one file in all. The largest networks of timm have 60,000; more only costs time."""

INT, TEXT, BYTES, FLOAT, DOUBLE, MESSAGE = "int", "text", "bytes", "float", "double", "message"

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPE = {INT: _VARINT, TEXT: _LENGTH, BYTES: _LENGTH, MESSAGE: _LENGTH, FLOAT: _FIXED32, DOUBLE: _FIXED64}
_PACKABLE = (INT, FLOAT, DOUBLE)


class WireError(ValueError):
    """The bytes are not a message, or not one that every reader understands in the same way."""


@dataclass(slots=True)
class Budget:
    """How many more fields may be read; shared by all messages of one file."""

    fields: int = MAX_FIELDS


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        name: As in the format's specification.
        kind: One of :data:`INT`, :data:`TEXT`, :data:`BYTES`, :data:`FLOAT`, :data:`DOUBLE`, :data:`MESSAGE`.
        repeated: May appear more than once; packed numbers come as one piece of bytes each.
    """

    name: str
    kind: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """Numbers of a repeated field that are written without tags between them.

    Attributes:
        kind: :data:`INT`, :data:`FLOAT` or :data:`DOUBLE`.
        data: The bytes.
    """

    kind: str
    data: memoryview


def decode(data: memoryview, schema: Mapping[int, Field], budget: Budget) -> dict[str, list[Any]]:
    """Return the values of one message by field name; fields that ``schema`` does not list are skipped.

    Args:
        data: The message.
        schema: Field number -> field.
        budget: Lowered by the fields read.

    Returns:
        Every field of ``schema`` that is present. int, float and str as such, bytes and messages as memoryview.

    Raises:
        WireError: Not a message, a value of another type, a single value twice, or more fields than ``budget`` allows.
    """
    found: dict[str, list[Any]] = {}
    position, end = 0, len(data)
    while position < end:
        budget.fields -= 1
        if budget.fields < 0:
            raise WireError(f"it has more than {MAX_FIELDS} fields")
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise WireError(f"field number {number} does not exist")
        value, position = _value(data, position, wire)
        field = schema.get(number)
        if field is None:
            continue
        if wire != _WIRE_TYPE[field.kind]:
            if not (field.repeated and wire == _LENGTH and field.kind in _PACKABLE):
                raise WireError(f"field '{field.name}' has wire type {wire}")
            value = Packed(field.kind, value)
        elif field.kind != BYTES and field.kind != MESSAGE:
            value = _typed(value, field.kind)
        if field.name not in found:
            found[field.name] = [value]
        elif field.repeated:
            found[field.name].append(value)
        else:
            raise WireError(f"field '{field.name}' is given twice")
    return found


def numbers(values: list[Any], limit: int, budget: Budget) -> list[Any]:
    """Return a repeated field's numbers, packed or not; each counts as a field read.

    Raises:
        WireError: More than ``limit`` of them or than ``budget`` allows, or bytes that do not divide into numbers.
    """
    out: list[Any] = []
    for value in values:
        if not isinstance(value, Packed):
            out.append(value)
        elif value.kind == INT:
            position = 0
            while position < len(value.data) and len(out) <= limit:
                number, position = _varint(value.data, position)
                out.append(_signed(number))
        else:
            code, size = ("f", 4) if value.kind == FLOAT else ("d", 8)
            count, rest = divmod(len(value.data), size)
            if rest:
                raise WireError("packed numbers end in the middle of one")
            out += struct.unpack(f"<{min(count, limit + 1)}{code}", value.data[: min(count, limit + 1) * size])
        if len(out) > limit:
            raise WireError(f"a list has more than {limit} numbers")
    budget.fields -= len(out)
    if budget.fields < 0:
        raise WireError(f"it has more than {MAX_FIELDS} fields")
    return out


def _value(data: memoryview, position: int, wire: int) -> tuple[Any, int]:
    if wire == _VARINT:
        return _varint(data, position)
    if wire == _LENGTH:
        size, position = _varint(data, position)
    elif wire == _FIXED32:
        size = 4
    elif wire == _FIXED64:
        size = 8
    else:
        raise WireError(f"wire type {wire} is not used")
    if size > len(data) - position:
        raise WireError("it ends in the middle of a field")
    return data[position : position + size], position + size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                raise WireError("a number has more than 64 bits")
            return value, position
        shift += 7
        if shift > 63:
            raise WireError("a number has more than 10 bytes")
    raise WireError("it ends in the middle of a number")


def _typed(value: Any, kind: str) -> Any:
    if kind == INT:
        return _signed(value)
    if kind == TEXT:
        return str(value, "utf-8", "surrogateescape")
    return struct.unpack("<f" if kind == FLOAT else "<d", value)[0]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value

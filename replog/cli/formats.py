"""The formats in which records leave a log and come into one.

``jsonl``: one JSON object a line, `offset`, `timestamp_ms` and, for a record that is UTF-8 text,
`data`, for any other `base64`: what `replog tail --json` prints. ``msgpack``: a stream of arrays
`[offset, timestamp_ms, data]`. Both give back every record as it was.

Rules of this file:

1. A record is written and read by itself: a file of any length takes the memory of one record.
2. What is read needs only the data; offsets and timestamps are what they become in the new log.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgpack

from replog.config import Limits
from replog.errors import ReplogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from replog.machine import Record

RECORD_BYTES_MAX = Limits().record_bytes_max
LINE_BYTES_MAX = 6 * RECORD_BYTES_MAX + 1024
"""A byte of text takes six in JSON at most, as \\u0000."""
CHUNK_BYTES = 256 << 10


class NotARecord(ReplogError):
    """A file holds something else than records in the format asked for; the message says where."""


class Format(NamedTuple):
    """One format: a file to and from."""

    pack: Callable[[Iterable[Record]], bytes]
    unpack: Callable[[BinaryIO], Iterator[tuple[bytes, int]]]
    """Each record's data and how many bytes of the file it took. Raises `NotARecord`."""


def pack_json(records: Iterable[Record]) -> bytes:
    """One line for each record."""
    return "".join([_json_line(*record) for record in records]).encode("ascii")


def _json_line(offset: int, data: bytes, timestamp_ms: int) -> str:
    try:
        field, text = "data", encode_basestring_ascii(data.decode())
    except UnicodeDecodeError:
        field, text = "base64", f'"{b64encode(data).decode()}"'
    return f'{{"offset":{offset},"timestamp_ms":{timestamp_ms},"{field}":{text}}}\n'


def unpack_json(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The data of each line, and the bytes of the line."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX):
        number += 1
        try:
            data = _data_of(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise NotARecord(f"line {number} is no record in JSON: {error}") from error
        yield data, len(line)


def _data_of(fields: Any) -> bytes:
    if type(fields) is not dict or ("data" in fields) == ("base64" in fields):
        raise ValueError('it is not an object with one of "data" and "base64"')
    value = fields.get("data", fields.get("base64"))
    if type(value) is not str:
        raise ValueError("its data is no text")
    return value.encode() if "data" in fields else b64decode(value, validate=True)


def pack_msgpack(records: Iterable[Record]) -> bytes:
    """One array for each record."""
    pack = msgpack.Packer().pack
    return b"".join([pack((offset, timestamp_ms, data)) for offset, data, timestamp_ms in records])


def unpack_msgpack(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The data of each array, and its bytes in the file."""
    unpacker = msgpack.Unpacker(
        use_list=False,
        max_buffer_size=RECORD_BYTES_MAX + 2 * CHUNK_BYTES,
        max_array_len=3,
        max_map_len=0,
        max_ext_len=0,
        max_str_len=0,
    )
    number = end = fed = 0
    while chunk := file.read(CHUNK_BYTES):
        fed += len(chunk)
        try:
            unpacker.feed(chunk)
            for row in unpacker:
                if type(row) is not tuple or len(row) != 3 or type(row[2]) is not bytes:
                    raise NotARecord(f"record {number} of the file is not [offset, ms, data]")
                number += 1
                start, end = end, unpacker.tell()
                yield row[2], end - start
        except (ValueError, msgpack.UnpackException) as error:
            raise NotARecord(f"record {number} of the file is no msgpack: {error!r}") from error
    if end != fed:
        raise NotARecord(f"the file ends within its record {number}")


FORMATS = {
    "jsonl": Format(pack_json, unpack_json),
    "msgpack": Format(pack_msgpack, unpack_msgpack),
}

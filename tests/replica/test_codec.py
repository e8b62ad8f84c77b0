"""Messages survive the wire, and nothing else gets through."""

from __future__ import annotations

import types
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftlog import Raft
from replog.agreement import EntryRef
from replog.codec import ENTRIES_MAX, Codec
from replog.entry import INTEGER_MAX, Epoch
from replog.errors import PeerFault
from replog.messages import TRUNK_MESSAGES, Forward, Met

CODEC = Codec(Raft().messages)
MESSAGES = TRUNK_MESSAGES + Raft().messages
INTEGERS = st.integers(0, INTEGER_MAX)
EPOCHS = st.builds(Epoch, INTEGERS, st.text(max_size=64))
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    bool: st.booleans(),
    str: st.text(max_size=64),
    bytes: st.binary(max_size=64),
    Epoch: EPOCHS,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    if hint in SIMPLE:
        return SIMPLE[hint]
    first = values(get_args(hint)[0])
    if get_origin(hint) is types.UnionType:
        return st.none() | first
    return st.lists(first, max_size=8).map(tuple)


def messages() -> st.SearchStrategy[Any]:
    def build(message: type[Any]) -> st.SearchStrategy[Any]:
        hints = get_type_hints(message)
        return st.builds(message, *[values(hints[field]) for field in message._fields])

    return st.one_of([build(message) for message in MESSAGES])


@st.composite
def refs(draw: st.DrawFn) -> list[EntryRef]:
    first = draw(st.integers(1, 1 << 62))
    epochs = draw(st.lists(EPOCHS, max_size=20))
    return [EntryRef(first + place, epoch) for place, epoch in enumerate(epochs)]


@given(messages(), refs())
def test_every_message_comes_back_as_it_was(message: Any, entries: list[EntryRef]) -> None:
    decoded, found = CODEC.decode(CODEC.encode(message, entries))
    assert (type(decoded), decoded, found) == (type(message), message, entries)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_a_peers_fault(data: bytes) -> None:
    try:
        message, _ = CODEC.decode(data)
    except PeerFault:
        return
    assert type(message) in MESSAGES


@given(messages(), st.data())
def test_a_damaged_message_is_a_peers_fault_or_another_message(message: Any, data: Any) -> None:
    good = bytearray(CODEC.encode(message))
    good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded, _ = CODEC.decode(bytes(good))
    except PeerFault:
        return
    assert type(decoded) in MESSAGES


FORWARD, MET = TRUNK_MESSAGES.index(Forward), TRUNK_MESSAGES.index(Met)


@pytest.mark.parametrize(
    "fields",
    [
        [FORWARD, 0, [], True, []],
        [FORWARD, 0, [], -1, []],
        [FORWARD, 0, [], 1 << 63, []],
        [FORWARD, 0, [], 1.0, []],
        [FORWARD, 0, [], 1, [1, "2"]],
        [FORWARD, 0, [], 1, 5],
        [FORWARD, 0, [], 1],
        [FORWARD, 0, [], 1, [], 1],
        [MET, 0, [], "text"],
        [MET, 0, [], b"x" * 300],
        [MET, 0, [[1, 1, "a"]], b""],
        [MET, 1, [[ENTRIES_MAX + 1, 1, "a"]], b""],
        [MET, 1, [[0, 1, "a"]], b""],
        [MET, 1, [[1, 1]], b""],
        [MET, INTEGER_MAX, [[2, 1, "a"]], b""],
        [True, 0, [], b""],
        [200, 0, []],
        [],
        {"a": 1},
        5,
    ],
)
def test_wrong_types_ranges_and_lengths_are_a_peers_fault(fields: Any) -> None:
    with pytest.raises(PeerFault):
        CODEC.decode(msgpack.packb(fields))

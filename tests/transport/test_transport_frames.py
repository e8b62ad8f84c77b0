"""The frame header and the gate."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.fabrics import header_of
from transport.frames import (
    ENTRY_PARTS_MAX,
    FRAME_HEADER_BYTES_MAX,
    FRAME_VERSION,
    HEADER_BYTES_MAX,
    MESSAGE_PARTS_MAX,
    PART_BYTES_MAX,
    REMEMBERED_FRAMES_MAX,
    FrameError,
    FrameGate,
    FrameHeader,
    check_message,
    check_node,
    new_drops,
)
from transport.interface import DROP_CAUSES

OWN = header_of("n1")
NAMES = st.text("abcXYZ019._-", min_size=1, max_size=64)
HEADERS = st.builds(
    FrameHeader,
    version=st.just(FRAME_VERSION),
    cluster_id=st.binary(min_size=16, max_size=16),
    agreement=NAMES,
    sender=NAMES,
    store_id=st.binary(min_size=16, max_size=16),
    life=st.integers(1, 2**63 - 1),
)


def pack(*fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields, use_bin_type=True)
    return packed


def cause_of(data: bytes) -> str:
    with pytest.raises(FrameError) as raised:
        FrameHeader.decode(data)
    return raised.value.cause


def test_the_limits_fit_each_other() -> None:
    assert (ENTRY_PARTS_MAX, MESSAGE_PARTS_MAX) == (1024, 1026)
    assert HEADER_BYTES_MAX == 1 << 20
    assert PART_BYTES_MAX > 16 << 20
    longest = header_of("s" * 64, agreement="a" * 64, life=2**63 - 1).encode()
    assert len(longest) <= FRAME_HEADER_BYTES_MAX


def test_a_header_is_an_array_of_fixed_positions() -> None:
    assert OWN.encode() == pack(1, OWN.cluster_id, "raft", "n1", OWN.store_id, 1_700_000_000_000)


@given(HEADERS)
def test_a_header_comes_back_as_it_was(header: FrameHeader) -> None:
    assert FrameHeader.decode(header.encode()) == header


def is_refused_by_cause_or_has_one_encoding(data: bytes) -> bool:
    try:
        header = FrameHeader.decode(data)
    except FrameError as error:
        return error.cause in DROP_CAUSES
    return header.encode() == data


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_cause_or_have_one_encoding(data: bytes) -> None:
    assert is_refused_by_cause_or_has_one_encoding(data)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text()
        | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_msgpack_that_is_no_header_raises_a_frame_error(value: Any) -> None:
    assert cause_of(msgpack.packb(value)) in DROP_CAUSES


@given(HEADERS, st.data())
def test_a_mutated_header_is_refused_by_cause_or_has_one_encoding(
    header: FrameHeader, data: st.DataObject
) -> None:
    encoded = bytearray(header.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(encoded) - 1))
        encoded[position : position + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2)
        )
        if not encoded:
            break
    assert is_refused_by_cause_or_has_one_encoding(bytes(encoded))


FIELDS = list(OWN)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, True),
        (0, 1.0),
        (0, "1"),
        (0, None),
        (1, b"short"),
        (1, b"x" * 17),
        (1, "x" * 16),
        (2, ""),
        (2, b"raft"),
        (2, "a" * 65),
        (2, "ra ft"),
        (3, ""),
        (3, "n" * 65),
        (3, "n/1"),
        (3, "n1\n"),
        (3, "\u0661"),
        (3, b"n1"),
        (3, 1),
        (4, b""),
        (4, b"x" * 15),
        (4, None),
        (5, 0),
        (5, -1),
        (5, 2**63),
        (5, True),
        (5, 1.5),
        (5, "1"),
        (5, []),
        (5, {}),
    ],
)
def test_a_field_of_another_type_or_range_is_malformed(position: int, value: Any) -> None:
    fields = [*FIELDS[:position], value, *FIELDS[position + 1 :]]
    assert cause_of(pack(*fields)) == "malformed"
    with pytest.raises(FrameError, match="malformed"):
        FrameHeader._make(fields).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack(),
        pack(*FIELDS[:5]),
        pack(*FIELDS, 1),
        msgpack.packb(dict(enumerate(FIELDS))),
        pack(*FIELDS) + b"\x00",
        b"\xdc\x00\x06" + pack(*FIELDS)[1:],  # an array of 6, with a longer length
        pack(*FIELDS[:5], msgpack.Timestamp(1)),
        b"\x91" * 1000,
        b"\x91" * FRAME_HEADER_BYTES_MAX + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        pack(*FIELDS[:3], b"\xff".decode("latin-1"), *FIELDS[4:]),
        b"\x96\x01\xc4\x10" + b"c" * 16 + b"\xa4\xff\xff\xff\xff",
    ],
)
def test_what_is_no_header_is_malformed(data: bytes) -> None:
    assert cause_of(data) == "malformed"


@pytest.mark.parametrize(
    "data",
    [
        pack(2),
        pack(0),
        pack(-1, {}),
        pack(2**64 - 1, *range(30)),
        pack(2, *FIELDS[1:]),
        pack(2, *FIELDS[1:], "a field of the future", [1, 2]),
    ],
)
def test_another_version_is_told_apart_whatever_follows_it(data: bytes) -> None:
    assert cause_of(data) == "version"


# --- the gate -------------------------------------------------------------------------------------


def gate() -> tuple[FrameGate, dict[str, int]]:
    drops = new_drops()
    opened = FrameGate(OWN, drops)
    for node in ("n1", "n2"):
        opened.allow(node)
    return opened, drops


def test_the_gate_lets_a_peer_in_and_remembers_its_frame() -> None:
    opened, drops = gate()
    header = header_of("n2")
    assert opened.admitted.get(header.encode()) is None
    assert opened.admit(header.encode()) == header
    assert opened.admitted[header.encode()] == header
    assert not any(drops.values())


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (b"garbage", "malformed"),
        (pack(2, *header_of("n2")[1:]), "version"),
        (header_of("n2", cluster_id=b"another cluster!").encode(), "cluster"),
        (header_of("n2", agreement="paxos").encode(), "agreement"),
        (header_of("n3").encode(), "sender"),
        (header_of("n1").encode(), "sender"),
        (header_of("N2").encode(), "sender"),
    ],
)
def test_the_gate_counts_what_it_refuses_every_time(frame: bytes, cause: str) -> None:
    opened, drops = gate()
    for count in (1, 2):
        assert opened.admitted.get(frame) is None
        assert opened.admit(frame) is None
        assert {name: number for name, number in drops.items() if number} == {cause: count}


def test_the_gate_forgets_a_peer_that_is_disallowed() -> None:
    opened, drops = gate()
    frame = header_of("n2").encode()
    opened.admit(frame)
    opened.disallow("n2")
    assert frame not in opened.admitted
    assert opened.admit(frame) is None
    assert drops["sender"] == 1


def test_the_gate_remembers_a_bounded_number_of_frames() -> None:
    opened, _ = gate()
    for life in range(1, 3 * REMEMBERED_FRAMES_MAX):
        assert opened.admit(header_of("n2", life=life).encode()) is not None
        assert len(opened.admitted) <= REMEMBERED_FRAMES_MAX


# --- what a sender may send -----------------------------------------------------------------------


def test_a_message_at_the_limits_may_be_sent() -> None:
    check_message(b"h" * HEADER_BYTES_MAX, [b"p" * PART_BYTES_MAX, *[b""] * (ENTRY_PARTS_MAX - 1)])


@pytest.mark.parametrize("node", ["n1", "a", "A-Z_0.9", "x" * 64])
def test_a_node_id(node: str) -> None:
    check_node(node)


@pytest.mark.parametrize("node", ["", "x" * 65, "n 1", "n1\n", "n/1", "\u00e9", b"n1", 1, None])
def test_no_node_id(node: Any) -> None:
    with pytest.raises(ValueError, match="node id"):
        check_node(node)

"""Entries: what is made parses back, and every damaged byte is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replog.entry import (
    DIGEST_START,
    Kind,
    Run,
    chain_digest,
    check_node_id,
    make_entry,
    pack_run,
    parse_entry,
    unpack_records,
)
from replog.errors import PeerFault

RECORDS = st.lists(st.binary(max_size=50), min_size=1, max_size=20)


def entry_of(batches: list[list[bytes]]) -> bytes:
    bodies = [pack_run(batch) for batch in batches]
    runs = [
        Run(f"n{place}", 7, 3 * place, len(batch), len(body))
        for place, (batch, body) in enumerate(zip(batches, bodies, strict=True))
    ]
    return make_entry(Kind.RECORDS, runs, bodies, 1234).data


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_records_come_back_run_by_run(batches: list[list[bytes]]) -> None:
    entry = parse_entry(entry_of(batches))
    assert [unpack_records(entry, place) for place in range(len(batches))] == batches
    assert entry.timestamp_ms == 1234


def test_a_no_op_has_no_runs() -> None:
    entry = parse_entry(make_entry(Kind.NOOP, (), (), 5).data)
    assert (entry.kind, entry.runs, entry.body_bytes) == (Kind.NOOP, (), 0)


def test_every_single_flipped_bit_is_noticed_or_changes_the_digest() -> None:
    """A flip in the header that still parses names other runs: the digest covers the header."""
    data = entry_of([[b"abc", b"de"], [b"f"]])
    good = chain_digest(DIGEST_START, 1, 0, (0, 1), parse_entry(data))
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            try:
                entry = parse_entry(bytes(damaged))
            except PeerFault:
                continue
            assert chain_digest(DIGEST_START, 1, 0, (0, 1), entry) != good


def test_every_truncation_is_noticed() -> None:
    data = entry_of([[b"abc"]])
    for length in range(len(data)):
        with pytest.raises(PeerFault):
            parse_entry(data[:length])


def test_the_digest_covers_position_and_decisions() -> None:
    entry = parse_entry(entry_of([[b"a"], [b"b"]]))
    digests = {
        chain_digest(previous, index, offset, accepted, entry)
        for previous in (DIGEST_START, b"x" * 16)
        for index in (1, 2)
        for offset in (0, 1)
        for accepted in ((0, 1), (0,), ())
    }
    assert len(digests) == 24


def test_a_run_that_lies_about_its_records_is_a_fault() -> None:
    body = pack_run([b"a", b"b"])
    for wrong in (1, 3):
        entry = parse_entry(
            make_entry(Kind.RECORDS, [Run("n1", 1, 0, wrong, len(body))], [body], 0).data
        )
        with pytest.raises(PeerFault):
            unpack_records(entry, 0)


@pytest.mark.parametrize("node", ["a", "n1", "A.b_c-9", "x" * 64])
def test_node_ids_are_words(node: str) -> None:
    assert check_node_id(node) == node


@pytest.mark.parametrize("node", ["", "a b", "x" * 65, "é", None, 7, b"n1", "a/b", "a\n"])
def test_anything_else_is_no_node_id(node: object) -> None:
    with pytest.raises(ValueError, match="no node id"):
        check_node_id(node)

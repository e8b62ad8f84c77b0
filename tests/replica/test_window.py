"""The window finds bytes by index and epoch, and keeps what is not yet durable and delivered."""

from __future__ import annotations

import pytest

from replog.agreement import EntryRef, WriteEntry
from replog.entry import NO_EPOCH, Entry, Epoch, Kind, Run, make_entry, pack_run
from replog.errors import InvariantBroken
from replog.replica.window import Window
from replog.store.interface import StoredEntry

OLD, NEW = Epoch(1, "n1"), Epoch(2, "n2")


def entry(text: bytes) -> Entry:
    body = pack_run([text])
    return make_entry(Kind.RECORDS, [Run("n1", 1, 0, 1, len(body))], [body], 1)


def test_an_index_alone_names_no_bytes() -> None:
    window = Window(1 << 20, [StoredEntry(1, OLD, entry(b"old").data)])
    assert window.find(EntryRef(1, NEW)) is None
    assert window.find(EntryRef(2, OLD)) is None
    found = window.find(EntryRef(1, OLD))
    assert found is not None
    assert (found[0], found[1].data) == (OLD, entry(b"old").data)


def test_no_epoch_names_whatever_is_here() -> None:
    window = Window(1 << 20, [StoredEntry(1, OLD, entry(b"old").data)])
    found = window.find(EntryRef(1, NO_EPOCH))
    assert found is not None
    assert found[0] == OLD


def test_an_entry_is_written_from_its_own_source_only() -> None:
    window = Window(1 << 20, [StoredEntry(1, OLD, entry(b"old").data)])
    with pytest.raises(InvariantBroken, match="never received"):
        window.write(WriteEntry(1, NEW, NEW))
    window.stage(EntryRef(1, NEW), entry(b"new"))
    assert window.write(WriteEntry(1, NEW, NEW)).data == entry(b"new").data
    assert window.find(EntryRef(1, OLD)) is None


def test_staged_entries_are_forgotten_when_the_core_has_had_its_say() -> None:
    window = Window(1 << 20, [])
    window.stage(EntryRef(1, OLD), entry(b"old"))
    window.settle()
    with pytest.raises(InvariantBroken, match="never received"):
        window.write(WriteEntry(1, OLD, OLD))


def test_only_what_is_durable_and_delivered_makes_room() -> None:
    window = Window(1, [StoredEntry(index, OLD, entry(b"x").data) for index in (1, 2, 3)])
    assert window.is_full
    window.evict(2)
    assert [window.at(index) is None for index in (1, 2, 3)] == [True, True, False]


def test_a_truncation_drops_the_suffix() -> None:
    window = Window(1 << 20, [StoredEntry(index, OLD, entry(b"x").data) for index in (1, 2, 3)])
    window.truncate(2)
    assert [window.at(index) is None for index in (1, 2, 3)] == [False, True, True]

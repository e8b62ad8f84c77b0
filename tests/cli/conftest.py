"""The command line in this process, and a node of its own to speak with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import replog
from raftlog import Raft
from replog import ReplicatedLog
from replog.agreement import Agreement
from replog.cli.commands import replog as commands
from replog.control import ControlServer
from replog.log_reader import LogReader
from replog.machine import make_records
from replog.machines import KeyValue
from replog.membership import cluster_id
from replog.store.interface import Batch
from replog.store.lmdb import create_or_open
from tests.each_agreement import pytest_generate_tests

__all__ = ["pytest_generate_tests"]

Run = Callable[..., Result]
RAFT = Raft()
SECONDS = 20.0
"""Longer than anything here takes; a wait that reaches it has failed."""


@pytest.fixture
def run() -> Run:
    """Runs a command; what it exits with and prints."""

    def invoke(*arguments: object, standard_input: bytes | None = None) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(commands, words, input=standard_input, prog_name="replog")

    return invoke


def make_log(directory: Path, *records: bytes, layer: Agreement = RAFT) -> Path:
    """A closed log of one node that holds these records."""
    with replog.open(directory, agreement=layer) as log:
        for record in records:
            log.append(record).result(SECONDS)
    return directory


def compact(directory: Path, offset: int, layer: Agreement = RAFT) -> Path:
    """Let a closed log of one node begin with the record at `offset`, the first of its entry."""
    with LogReader(directory) as reader:
        ((row, _),) = reader.entries(offset - 1, offset)
    membership = layer.membership({"n1"})
    store = create_or_open(
        directory,
        node="n1",
        cluster_id=cluster_id(layer.name, membership),
        agreement=layer.name,
        membership=membership,
        unix_ms=1,
        map_bytes_max=replog.Limits().map_bytes_max,
    )
    store.commit([Batch(compact_to=row.index)])
    store.close()
    return directory


def make_compacted(directory: Path, layer: Agreement = RAFT) -> Path:
    """A closed log of 30 commands, one in each entry, that begins with that at offset 15; with the
    state of its machine at offset 20."""
    with replog.open(directory, agreement=layer) as log:
        log.attach(KeyValue())
        for number in range(30):
            log.call(KeyValue.put(b"%d" % (number % 7), b"%d" % number)).result(SECONDS)
            if number == 19:
                log.snapshot().result(SECONDS)
    return compact(directory, 15, layer)


def state_at(offset: int) -> str:
    """The digest of the machine of that log at an offset."""
    machine = KeyValue()
    data = [KeyValue.put(b"%d" % (number % 7), b"%d" % number) for number in range(offset)]
    machine.apply(make_records(0, data, 0))
    return machine.digest().hex()


def make_member(directory: Path) -> Path:
    """The closed directory of n1, one of three members that have not met."""
    members = {f"n{number}": f"tcp://127.0.0.1:{number}" for number in (1, 2, 3)}
    with replog.open(
        directory, node="n1", members={**members, "n1": "tcp://127.0.0.1:0"}, agreement=RAFT
    ):
        pass
    return directory


@contextmanager
def served(
    directory: Path, layer: Agreement = RAFT
) -> Iterator[tuple[ReplicatedLog, threading.Event]]:
    """A node that runs in this process, and whether it was asked to stop."""
    asked = threading.Event()
    with replog.open(directory, agreement=layer) as log:
        server = ControlServer(log, directory, asked.set)
        try:
            yield log, asked
        finally:
            log.close()
            server.close()

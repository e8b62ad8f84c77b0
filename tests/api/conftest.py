"""Logs for the tests of the public interface: one node alone, and three in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import replog
from replog import Limits, ReplicatedLog
from replog.agreement import Agreement
from tests.each_agreement import make_agreement, pytest_generate_tests
from transport.frames import FrameHeader
from transport.interface import Transport
from transport.loopback import LoopbackNetwork

__all__ = ["pytest_generate_tests"]

MEMBERS = {"n1": "", "n2": "", "n3": ""}
SECONDS = 20.0
"""Longer than anything here takes; a wait that reaches it has failed."""


class Cluster:
    """Logs of this process over one loopback network: three, or as many as there are names."""

    def __init__(
        self,
        directory: Path,
        network: LoopbackNetwork,
        agreement: Agreement,
        names: Iterable[str] = MEMBERS,
    ) -> None:
        self.directory = directory
        self.network = network
        self.agreement = agreement
        self.members = dict.fromkeys(names, "")
        self.logs: dict[str, ReplicatedLog] = {}

    def open(
        self,
        node: str,
        limits: Limits | None = None,
        agreement: Agreement | None = None,
        **settings: Any,
    ) -> ReplicatedLog:
        def connect(header: FrameHeader, members: Mapping[str, str]) -> Transport:
            return self.network.attach(node, header, [name for name in members if name != node])

        self.logs[node] = replog.open(
            self.directory / node,
            node=node,
            members=self.members,
            agreement=agreement or self.agreement,
            limits=limits,
            connect=connect,
            **settings,
        )
        return self.logs[node]

    def leader(self) -> str:
        """The node that leads, once one does."""
        next(iter(self.logs.values())).barrier().result(SECONDS)
        for node, log in self.logs.items():
            if log.status().leadership.role == "leader":
                return node
        raise LookupError("the leadership changed meanwhile")

    def follower(self) -> str:
        return next(node for node in self.logs if node != self.leader())

    def close(self) -> None:
        for log in self.logs.values():
            log.close()


@pytest.fixture
def layer(agreement: str) -> Agreement:
    """The agreement layer of this test."""
    return make_agreement(agreement)


@pytest.fixture
def cluster(tmp_path: Path, layer: Agreement) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, LoopbackNetwork(), layer)
    try:
        for node in MEMBERS:
            cluster.open(node)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def open_alone(tmp_path: Path, layer: Agreement) -> Iterator[Callable[..., ReplicatedLog]]:
    """Opens the one-node log of this test, with any limits; closed at the end."""
    opened: list[ReplicatedLog] = []

    def open_log(**limits: int) -> ReplicatedLog:
        opened.append(replog.open(tmp_path / "alone", agreement=layer, limits=Limits(**limits)))
        return opened[-1]

    yield open_log
    for log in opened:
        log.close()

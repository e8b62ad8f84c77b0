"""Bad arguments and wrong directories: an error that names what and where, and nothing lost."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

import replog
from paxoslog import MultiPaxos
from raftlog import Raft
from replog.agreement import Agreement
from tests.api.conftest import MEMBERS, SECONDS, Cluster

LOCAL = {name: f"tcp://127.0.0.1:{port}" for name, port in (("n1", 1), ("n2", 2), ("n3", 3))}


def refuse(path: Path, match: str, **arguments: object) -> None:
    with pytest.raises(replog.ConfigError, match=match):
        replog.open(path, agreement=Raft(), **arguments)  # type: ignore[arg-type]
    assert not path.exists(), "a directory was made for arguments that cannot be used"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_address_that_others_can_reach_needs_a_word(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "10.1.2.3", "*"):
        members = {**LOCAL, "n1": f"tcp://{host}:7001"}
        refuse(tmp_path / "n1", "plaintext=True", node="n1", members=members)


def test_a_node_must_be_among_its_members(tmp_path: Path) -> None:
    refuse(tmp_path / "n4", "'n4' is not among the members n1, n2, n3", node="n4", members=LOCAL)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "n/1", "ñ"])
def test_a_node_id_has_a_form(tmp_path: Path, name: str) -> None:
    refuse(tmp_path / "x", "no node id", node=name)


@pytest.mark.parametrize("address", ["127.0.0.1:7001", "tcp://127.0.0.1", "udp://127.0.0.1:1", ""])
def test_an_address_has_a_form(tmp_path: Path, address: str) -> None:
    refuse(tmp_path / "n1", "tcp://", node="n1", members={**LOCAL, "n1": address})
    refuse(tmp_path / "n1", "tcp://", node="n1", members={**LOCAL, "n2": address})


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(replog.ConfigError, match=address):
            replog.open(
                tmp_path / "n1", node="n1", agreement=Raft(), members={**LOCAL, "n1": address}
            )


def test_a_directory_of_another_node_cluster_or_membership_is_refused(
    tmp_path: Path, layer: Agreement
) -> None:
    ports: Mapping[str, str] = {name: f"tcp://127.0.0.1:{free_port()}" for name in MEMBERS}
    path = tmp_path / "n1"
    replog.open(path, node="n1", agreement=layer, members=ports).close()
    for arguments in (
        {"node": "n2", "members": ports},
        {"node": "n1", "members": ports, "cluster": "other"},
        {"node": "n1", "members": {**ports, "n4": "tcp://127.0.0.1:4"}},
        {"node": "n1"},
    ):
        with pytest.raises(replog.WrongStore, match=str(path)):
            replog.open(path, agreement=layer, **arguments)
    replog.open(path, node="n1", agreement=layer, members=ports).close()


@pytest.mark.parametrize(("first", "second"), [(Raft(), MultiPaxos()), (MultiPaxos(), Raft())])
def test_a_log_is_opened_with_the_agreement_it_was_made_with(
    tmp_path: Path, first: Agreement, second: Agreement
) -> None:
    path = tmp_path / "n1"
    with replog.open(path, agreement=first) as log:
        log.append(b"kept").result(SECONDS)
    says = f"{path}.* holds a log under '{first.name}', not '{second.name}': open it with the agree"
    with pytest.raises(replog.WrongStore, match=says):
        replog.open(path, agreement=second)
    with replog.open(path, agreement=first) as log:
        assert log.append(b"goes on").result(SECONDS) == 1
        assert [record.data for record in log.read()] == [b"kept", b"goes on"]


def test_limits_are_checked() -> None:
    for name in ("entry_bytes_max", "pending_bytes_max"):
        for value in (0, -1, 1.5, True):
            with pytest.raises(replog.ConfigError, match=name):
                replog.Limits(**{name: value})  # type: ignore[arg-type]


def test_a_member_that_lost_its_data_is_refused_and_says_why(cluster: Cluster) -> None:
    lost = cluster.follower()
    cluster.logs["n1"].append(b"kept").result(SECONDS)
    cluster.logs.pop(lost).close()
    for file in (cluster.directory / lost).iterdir():
        file.unlink()
    wiped = cluster.open(lost)
    with pytest.raises(replog.Closed, match="lost its data"):
        wiped.append(b"from nowhere").result(SECONDS)
    with pytest.raises(replog.Closed, match="lost its data"):
        wiped.append(b"again")
    with pytest.raises(replog.NodeStopped, match="lost its data"):
        wiped.read()
    survivor = next(node for node in MEMBERS if node != lost)
    assert cluster.logs[survivor].append(b"life goes on").result(SECONDS) == 1

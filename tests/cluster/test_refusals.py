"""What a running cluster does not take: wiped, damaged and doubled directories, and hostile bytes.

Each refusal names what is wrong and where, and costs nobody else anything.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgpack
import zmq

from replog.demo.cluster import LocalCluster, Member
from replog.log_reader import LogReader
from tests.cluster.load import SECONDS, Load
from transport.frames import FRAME_VERSION, FrameHeader

ROOT = Path(__file__).resolve().parents[2]


def replog(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replog", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def last_line(member: Member) -> str:
    return member.output.read_text("utf-8").splitlines()[-1]


def test_a_wiped_directory_of_a_known_member_is_refused(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    lost = cluster["n1"]
    load.kill(lost)
    shutil.rmtree(lost.directory)
    lost.start()
    assert lost.wait(SECONDS) == 1
    assert "IdentityRefused: " in last_line(lost)
    assert "refuses this node: n1 shows store" in last_line(lost)
    assert "n1 lost its data" in last_line(lost)
    load.until_more(load.others(lost))


def test_a_directory_is_opened_once(cluster: LocalCluster) -> None:
    pid = cluster["n1"].pid
    again = replog("node", str(cluster["n1"].directory), "--node=n1")
    assert again.returncode == 1
    assert f"StoreInUse: {cluster['n1'].directory} is in use by process {pid}" in again.stderr
    assert cluster["n1"].runs


def test_an_address_in_use_is_named(stopped_cluster: LocalCluster) -> None:
    member = stopped_cluster["n1"]
    address = stopped_cluster.addresses["n1"]
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        member.start()
        assert member.wait(SECONDS) == 2
    assert f"ConfigError: node n1 cannot take part: {address} is taken" in last_line(member)


def test_a_truncated_data_file_is_an_error_and_no_signal(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    assert load.finish().faults == ()
    member = cluster["n2"]
    data = member.directory / "data.mdb"
    used = 4096 * 8
    with data.open("r+b") as file:
        file.truncate(used)
    member.start()
    assert member.wait(SECONDS) == 1
    assert f"Corruption: {data} is cut off: it holds {used} bytes of the" in last_line(member)
    for command in ("verify", "tail", "status"):
        refused = replog(command, str(member.directory))
        assert refused.returncode == 1
        assert f"{data} is cut off" in refused.stdout + refused.stderr


def test_verify_names_a_record_whose_bytes_were_flipped(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    assert load.finish().faults == ()
    whole, damaged = cluster["n1"].directory, cluster["n3"].directory
    data = damaged / "data.mdb"
    content = bytearray(data.read_bytes())
    place = content.rindex(b"n2:0000003 a line")
    content[place + 14] ^= 1
    data.write_bytes(content)
    checked = replog("verify", "--json", str(whole), str(damaged))
    assert checked.returncode == 1
    first, second = map(json.loads, checked.stdout.splitlines())
    assert first["whole"] is True
    assert first["faults"] == []
    assert first["records"] > 500
    assert second["whole"] is False
    assert f"{data}: table log, key " in second["faults"][0]


def hostile_parts(source: random.Random) -> list[bytes]:
    """A message header and entries, as bad as they come."""
    headers = (
        b"",
        source.randbytes(source.randrange(1, 200)),
        msgpack.packb([source.randrange(300) for _ in range(source.randrange(12))]),
        msgpack.packb([source.randrange(70), 1, [[2**40, 1, "n2"]], *range(6)]),
        msgpack.packb({"term": 1 << 62}),
        b"\x91" * 1000,
    )
    bodies = [source.randbytes(source.randrange(400)) for _ in range(source.choice((0, 1, 3)))]
    return [source.choice(headers), *bodies]


def send_hostile_frames(address: str, known: bytes, count: int) -> None:
    """Messages with a peer's true frame header and false content, and frames of nobody."""
    source = random.Random(7)
    with zmq.Context() as context, context.socket(zmq.DEALER) as sender:
        sender.connect(address)
        for _ in range(count):
            sender.send_multipart([known, *hostile_parts(source)])
            sender.send_multipart([source.randbytes(30), *hostile_parts(source)])
        sender.send_multipart([known, b"", *[b"x"] * 3000])
        sender.send(known)
    port = int(address.rpartition(":")[2])
    for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", source.randbytes(4000), b"\xff" + b"\0" * 9):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(greeting)


def test_hostile_bytes_on_the_port_are_counted_and_the_node_lives_on(cluster: LocalCluster) -> None:
    load = Load(cluster)
    load.until_more(list(load.feeders))
    with LogReader(cluster["n2"].directory) as reader:
        owner = reader.identity
    known = FrameHeader(
        FRAME_VERSION, owner.cluster_id, owner.agreement, "n2", owner.store_id, owner.life
    ).encode()
    for member in cluster:
        if member.name != "n2":
            send_hostile_frames(cluster.addresses[member.name], known, 300)
    load.until_more(list(load.feeders))
    for member in cluster:
        assert member.runs
        if member.name != "n2":
            assert member.client
            drops = member.client.status()["drops"]
            assert drops["malformed"] >= 300
            assert drops["peer fault"] >= 200
            assert drops["parts"] == 1
    assert load.finish().faults == ()

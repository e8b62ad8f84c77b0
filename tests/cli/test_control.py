"""The control socket: both ends, and what each does when the other misbehaves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
import zmq

import replog
from raftlog import Raft
from replog import Limits, ReplicatedLog
from replog.cli.append import Tally
from replog.control import ControlClient, ControlServer, NodeNotRunning, NodeSilent, Reply, words
from replog.control.server import OPEN_BYTES_MAX, offset_ranges
from replog.errors import (
    Busy,
    Closed,
    ConfigError,
    NodeStopped,
    OutcomeUnknown,
    ReplogError,
    TooLarge,
)
from replog.machines import KeyValue
from replog.pending import Pending, fail_all, resolve
from tests.cli.conftest import SECONDS, served
from tests.each_agreement import make_agreement


class HeldLog:
    """A log whose appends wait until the test gives them an outcome."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.pendings: list[Pending[Any]] = []
        self.refusal: Exception | None = None
        """Raised by the next append."""
        self.grew = threading.Event()

    def append(self, record: bytes) -> Pending[int]:
        if self.refusal is not None:
            raise self.refusal
        self.records.append(record)
        self.pendings.append(Pending())
        self.grew.set()
        return self.pendings[-1]

    def append_many(self, records: Sequence[bytes]) -> Pending[range]:
        self.append(b"".join(records))
        return self.pendings[-1]

    def barrier(self) -> Pending[None]:
        return self.pendings[0]


@contextmanager
def held(directory: Path) -> Iterator[tuple[HeldLog, ControlServer, ControlClient]]:
    directory.mkdir()
    log = HeldLog()
    server = ControlServer(cast("ReplicatedLog", log), directory, lambda: None)
    with ControlClient(directory) as client:
        try:
            yield log, server, client
        finally:
            fail_all(log.pendings, Closed("the test is over"))
            server.close()


def wait_until(condition: Any) -> None:
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


# --- what it is for -------------------------------------------------------------------------------


def test_every_request_has_its_answer(tmp_path: Path, agreement: str) -> None:
    layer = make_agreement(agreement)
    with served(tmp_path / "n1", layer) as (log, asked), ControlClient(tmp_path / "n1") as client:
        assert client.append(b"a") == 0
        assert client.append_many([b"b", b"c"]) == range(1, 3)
        assert client.call(words.APPEND, [b"d", b"e"]) == [[3, 2]]
        client.barrier()
        status = client.status()
        assert (status["role"], status["end_offset"]) == ("leader", 5)
        assert not asked.is_set()
        client.call(words.STOP)
        assert asked.wait(SECONDS)
        assert [record.data for record in log.read()] == [b"a", b"b", b"c", b"d", b"e"]


def test_pipelined_appends_keep_their_order(tmp_path: Path) -> None:
    with served(tmp_path / "n1") as (log, _), ControlClient(tmp_path / "n1") as client:
        records = [b"%d" % number for number in range(4000)]
        requests = [client.submit(words.APPEND, records[at : at + 10]) for at in range(0, 4000, 10)]
        replies = {}
        while client.open_requests:
            for reply in client.replies(1000):
                replies[reply.request_id] = reply
        offsets = [replies[request].value for request in requests]
        assert [record.data for record in log.read()] == records
        assert offsets == [[[at, 10]] for at in range(0, 4000, 10)]


def test_a_snapshot_is_answered_once_it_is_kept(tmp_path: Path, agreement: str) -> None:
    layer = make_agreement(agreement)
    with served(tmp_path / "n1", layer) as (log, _), ControlClient(tmp_path / "n1") as client:
        machine = log.attach(KeyValue())
        assert client.snapshot() is None
        assert log.call(KeyValue.put(b"a", b"b")).result(SECONDS) is None
        kept = client.snapshot()
        status = client.status()
    assert kept is not None
    assert (kept.offset, kept.pieces) == (1, 1)
    assert status["snapshot"] == {"index": kept.index, "offset": 1, "size": kept.size}
    assert (status["transfer"], status["readers"], status["machine"]["offset"]) == ("", {}, 1)
    assert kept.size == sum(map(len, machine.snapshot()))


def test_what_a_machine_raises_is_answered_and_ends_nothing(tmp_path: Path) -> None:
    class Broken(KeyValue):
        def snapshot(self) -> Iterator[bytes]:
            yield b"begun"
            raise LookupError("no state today")

    with served(tmp_path / "n1") as (log, _), ControlClient(tmp_path / "n1") as client:
        log.attach(Broken())
        log.call(KeyValue.put(b"a", b"b")).result(SECONDS)
        with pytest.raises(ReplogError, match="LookupError: no state today"):
            client.snapshot()
        assert client.append(b"goes on") == 1
        assert "no state today" in client.status()["alarm"]


def test_errors_keep_their_class(tmp_path: Path) -> None:
    limits = Limits(record_bytes_max=100)
    with replog.open(tmp_path / "n1", agreement=Raft(), limits=limits) as log:
        server = ControlServer(log, tmp_path / "n1", lambda: None)
        with ControlClient(tmp_path / "n1") as client:
            with pytest.raises(TooLarge, match="a record of 101 bytes, 100 are allowed"):
                client.append(b"x" * 101)
            # The records before it are in the log, and the answer says so.
            client.submit(words.APPEND, [b"a", b"b", b"x" * 101, b"c"])
            (reply,) = client.replies(10_000)
            assert reply.value == [[0, 2]]
            assert isinstance(reply.error, TooLarge)
            log.close()
            with pytest.raises(Closed):
                client.append(b"late")
            with pytest.raises(Closed):
                client.status()
            server.close()
    assert client.ended


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    directory = tmp_path / ("long " * 30) / "\u00fc" / "n1"
    assert len(os.fsencode(directory)) > words.IPC_PATH_BYTES_MAX
    with served(directory), ControlClient(directory) as client:
        assert client.append(b"a") == 0
        with ControlClient(os.path.relpath(directory)) as other:
            assert other.append(b"b") == 1


def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    with served(tmp_path / "n1"):
        assert (tmp_path / "n1").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "n1" / "control").stat().st_mode & 0o777 == 0o600


# --- the node goes away ---------------------------------------------------------------------------


def test_nobody_answers_where_no_node_runs(tmp_path: Path) -> None:
    with pytest.raises(NodeNotRunning, match="no node runs in"):
        ControlClient(tmp_path)
    with pytest.raises(NodeNotRunning):
        ControlClient(tmp_path / "none")
    with pytest.raises(NodeNotRunning):
        ControlClient(tmp_path / ("none" * 30))
    with served(tmp_path / "n1"):
        pass
    assert (tmp_path / "n1" / "control").is_socket()
    with pytest.raises(NodeNotRunning):
        ControlClient(tmp_path / "n1")


def test_a_socket_that_never_answers_is_told_apart(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control"))
        listener.listen()
        with pytest.raises(NodeSilent, match=r"has not answered within 0\.2 s"):
            ControlClient(tmp_path, 0.2)


def test_what_is_in_flight_when_the_node_goes_away_is_unknown(tmp_path: Path) -> None:
    with held(tmp_path / "n1") as (log, server, client):
        first = client.submit(words.APPEND, [b"a"])
        second = client.submit(words.APPEND, [b"b"])
        third = client.submit(words.BARRIER)
        wait_until(lambda: len(log.pendings) == 2)
        # An ending that answers nobody, as a kill would be.
        server._open_bytes = 0
        server.close()
        replies: dict[int, Reply] = {}
        while client.open_requests:
            replies |= {reply.request_id: reply for reply in client.replies(1000)}
        replies |= {reply.request_id: reply for reply in client.replies()}
        assert client.ended
        for request in (first, second):
            assert isinstance(replies[request].error, OutcomeUnknown)
        assert isinstance(replies[third].error, NodeNotRunning)
        with pytest.raises(OutcomeUnknown):
            client.append(b"late")
        with pytest.raises(NodeNotRunning):
            client.status()


def test_a_call_gives_up_in_time_and_its_answer_may_still_come(tmp_path: Path) -> None:
    with held(tmp_path / "n1") as (log, _, client):
        with pytest.raises(TimeoutError, match=r"has not answered append within 0\.05 s"):
            client.append(b"a", 0.05)
        resolve(log.pendings[0], 7)
        (reply,) = client.replies(10_000)
        assert reply.value == [[7, 1]]


def test_closing_the_server_answers_what_is_open(tmp_path: Path) -> None:
    with held(tmp_path / "n1") as (log, server, client):
        client.submit(words.APPEND, [b"a", b"b", b"c"])
        client.submit(words.APPEND_MANY, [b"d"])
        wait_until(lambda: len(log.pendings) == 4)
        resolve(log.pendings[0], 0)
        # In the order in which a node that stops tells: what has no number yet comes first.
        fail_all(log.pendings[2:], Closed("not in the log"))
        fail_all(log.pendings[1:2], OutcomeUnknown("in flight"))
        server.close()
        replies = client.replies(10_000)
        while len(replies) < 2:
            replies += client.replies(10_000)
        assert replies[0].value == [[0, 1]]
        # One of the two is in flight: of both together no more can be said.
        assert isinstance(replies[0].error, OutcomeUnknown)
        assert isinstance(replies[1].error, Closed)


@pytest.mark.parametrize("all_appended", [True, False])
def test_what_is_known_to_be_in_the_log_is_told(tmp_path: Path, all_appended: bool) -> None:
    skipped = OutcomeUnknown("a snapshot stands for it", appended=True)
    with held(tmp_path / "n1") as (log, _, client):
        tally = Tally(
            submitted=4, counts={client.submit(words.APPEND, [b"a", b"b", b"c", b"d"]): 4}
        )
        wait_until(lambda: len(log.pendings) == 4)
        resolve(log.pendings[0], 7)
        fail_all(log.pendings[1:2], skipped)
        fail_all(log.pendings[2:3], skipped if all_appended else OutcomeUnknown("in flight"))
        resolve(log.pendings[3], 10)
        tally.take(client, wait=True)
    assert isinstance(tally.error, OutcomeUnknown)
    assert tally.error.appended is all_appended
    known = (tally.records, tally.unplaced, tally.refused, tally.unknown)
    assert known == ((1, 3, 0, 0) if all_appended else (1, 0, 0, 3))
    assert ("; 3 are in the log at offsets that are not known" in tally.text()) is all_appended


def test_a_run_that_is_known_to_be_in_the_log_is_told_so(tmp_path: Path) -> None:
    with held(tmp_path / "n1") as (log, _, client):
        client.submit(words.APPEND_MANY, [b"a", b"b"])
        wait_until(lambda: bool(log.pendings))
        fail_all(log.pendings, OutcomeUnknown("a snapshot stands for it", appended=True))
        (reply,) = client.replies(10_000)
        assert isinstance(reply.error, OutcomeUnknown)
        assert reply.error.appended


# --- bounds and bad requests ----------------------------------------------------------------------


def test_a_node_that_is_full_reads_no_more_until_it_has_answered(tmp_path: Path) -> None:
    size = 4 << 20
    count = 2 * OPEN_BYTES_MAX // size
    with held(tmp_path / "n1") as (log, _, client):
        for number in range(count):
            client.submit(words.APPEND, [b"%02d" % number + b"x" * size])
        taken = OPEN_BYTES_MAX // size  # the last of them passes the bound
        wait_until(lambda: len(log.records) >= taken)
        answered = 0
        while answered < count:
            wait_until(lambda: len(log.pendings) > answered)  # noqa: B023 - called here
            assert len(log.records) <= taken + answered
            resolve(log.pendings[answered], answered)
            (reply,) = client.replies(10_000)
            assert reply.value == [[answered, 1]]
            answered += 1
        assert [int(record[:2]) for record in log.records] == list(range(count))


def test_a_log_that_is_busy_refuses_by_that_name(tmp_path: Path) -> None:
    with held(tmp_path / "n1") as (log, _, client):
        log.refusal = Busy("too much waits")
        with pytest.raises(Busy, match="too much waits"):
            client.append_many([b"a"])


def raw_exchange(directory: Path, *frames: bytes) -> list[Any]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(f"ipc://{directory / 'control'}")
        socket.send_multipart(frames)
        assert socket.poll(10_000)
        answer: list[Any] = msgpack.unpackb(socket.recv())
        return answer


BAD = [
    (b"\xc1", 0, "does not unpack"),
    (b"", 0, "does not unpack"),
    (msgpack.packb({"stop": 1}), 0, "not an array of four"),
    (msgpack.packb([1, 2, "stop"]), 0, "not an array of four"),
    (msgpack.packb([9, 2, "stop", []]), 0, "version 9"),
    (msgpack.packb([1, -1, "stop", []]), 0, "-1 is no request id"),
    (msgpack.packb([1, True, "stop", []]), 0, "True is no request id"),
    (msgpack.packb([1, "x", "stop", []]), 0, "'x' is no request id"),
    (msgpack.packb([1, 2, "halt", []]), 0, "'halt' is no request: use one of append"),
    (msgpack.packb([1, 2, ["stop"], []]), 0, "is no request"),
    (msgpack.packb([1, 2, "stop", [b"x"]]), 0, "stop comes with 1 records"),
    (msgpack.packb([1, 2, "append", []]), 0, "append comes with 0 records"),
    (msgpack.packb([1, 2, "append", ["text"]]), 0, "something else than an array of records"),
    (msgpack.packb([1, 2, "append", b"x"]), 0, "something else than an array of records"),
    (msgpack.packb([1, 2, "append", [b""] * 65537]), 0, "does not unpack"),
]


def test_bad_requests_are_answered_with_what_is_wrong(tmp_path: Path) -> None:
    with served(tmp_path / "n1") as (log, asked):
        for request, request_id, says in BAD:
            version, answered_id, error, value = raw_exchange(tmp_path / "n1", request)
            assert (version, answered_id, value) == (1, request_id, None)
            assert error[0] == "ConfigError"
            assert says in error[1]
        error = raw_exchange(tmp_path / "n1", b"one", b"two")[2]
        assert "a request of 2 frames" in error[1]
        assert not asked.is_set()
        assert log.end_offset == 0


def test_a_request_beyond_the_limits_is_not_sent(tmp_path: Path) -> None:
    with served(tmp_path / "n1"), ControlClient(tmp_path / "n1") as client:
        with pytest.raises(ConfigError, match="65537 records in a request, 65536 are allowed"):
            client.submit(words.APPEND, [b""] * 65537)
        with pytest.raises(ConfigError, match="16777216 are allowed"):
            client.submit(words.APPEND, [bytes(words.MESSAGE_BYTES_MAX)])
        assert client.append(b"a") == 0


def test_an_oversize_message_ends_its_connection_and_no_other(tmp_path: Path) -> None:
    with served(tmp_path / "n1"), ControlClient(tmp_path / "n1") as client:
        with ControlClient(tmp_path / "n1") as other:
            request = other.submit(words.STATUS)
            other._socket.send(bytes(words.MESSAGE_BYTES_MAX + 1))
            while not other.ended:
                other._receive(1000)
            assert [reply.request_id for reply in other.replies()] == [request]
        assert client.append(b"a") == 0


def test_the_error_of_a_stopped_node_arrives(tmp_path: Path) -> None:
    with held(tmp_path / "n1") as (log, _, client):
        client.submit(words.APPEND, [b"a"])
        wait_until(lambda: log.pendings)
        fail_all(log.pendings, NodeStopped("the disk is gone"))
        (reply,) = client.replies(10_000)
        assert isinstance(reply.error, NodeStopped)
        assert str(reply.error) == "the disk is gone"


def test_offsets_are_told_as_ranges() -> None:
    assert offset_ranges([]) == []
    assert offset_ranges([5]) == [(5, 1)]
    assert offset_ranges([5, 6, 7]) == [(5, 3)]
    assert offset_ranges([5, 6, 9, 10, 20]) == [(5, 2), (9, 2), (20, 1)]

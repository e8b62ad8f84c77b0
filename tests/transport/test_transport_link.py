"""What a link makes of the answers of its socket."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

from transport import link
from transport.address import parse_address

MORE = True
LAST = False


class ScriptedSocket:
    """Raises `zmq.Again` at the sends of these numbers; has room again if `recovers`."""

    def __init__(self, refuses: set[int], *, recovers: bool = False) -> None:
        self.refuses = refuses
        self.recovers = recovers
        self.sends_count = 0
        self.taken: list[tuple[bytes, bool]] = []
        self.copied: list[bool] = []

    def send(self, data: bytes, flags: int, copy: bool = True) -> None:
        assert flags & zmq.DONTWAIT
        self.sends_count += 1
        if self.sends_count in self.refuses:
            raise zmq.Again
        self.taken.append((data, bool(flags & zmq.SNDMORE)))
        self.copied.append(copy)

    def poll(self, timeout_ms: int, flags: int) -> int:
        assert (timeout_ms, flags) == (0, zmq.POLLOUT)
        return int(zmq.POLLOUT) if self.recovers else 0

    def connect(self, address: str) -> None:
        assert address == "tcp://127.0.0.1:7001"

    def close(self) -> None: ...


def link_with(monkeypatch: pytest.MonkeyPatch, *sockets: ScriptedSocket) -> link.Link:
    """A link that opens these sockets, one after the other."""
    opened = iter(sockets)
    context: Any = None
    monkeypatch.setattr(link, "open_socket", lambda *_: next(opened))
    return link.Link(context, parse_address("tcp://127.0.0.1:7001"), link.BULK)


def test_a_message_goes_out_in_parts_of_which_the_last_one_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket = ScriptedSocket(set())
    sending = link_with(monkeypatch, socket)
    assert sending.send(b"frame", b"header", [])
    assert sending.send(b"frame", b"header", [b"1", b"2"])
    assert socket.taken == [
        (b"frame", MORE),
        (b"header", LAST),
        (b"frame", MORE),
        (b"header", MORE),
        (b"1", MORE),
        (b"2", LAST),
    ]


def test_only_large_parts_are_shared_with_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    socket = ScriptedSocket(set())
    small, large = b"x" * 65_536, b"x" * 65_537
    assert link_with(monkeypatch, socket).send(b"frame", b"header", [large, small, large])
    assert socket.copied == [True, True, False, True, False]


def test_a_link_without_room_refuses_before_a_message_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket = ScriptedSocket({1})
    sending = link_with(monkeypatch, socket)
    assert not sending.send(b"frame", b"header", [b"entry"])
    assert socket.taken == []


def test_a_link_looks_for_room_again_before_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    socket = ScriptedSocket({1}, recovers=True)
    assert link_with(monkeypatch, socket).send(b"frame", b"header", [])
    assert socket.taken == [(b"frame", MORE), (b"header", LAST)]


@pytest.mark.parametrize(
    ("refused_part", "taken"),
    [
        (2, [(b"frame", MORE), (b"", LAST)]),
        (3, [(b"frame", MORE), (b"header", MORE), (b"", LAST)]),
        (4, [(b"frame", MORE), (b"header", MORE), (b"1", MORE)]),
    ],
)
def test_a_message_that_breaks_off_is_ended_so_that_the_next_one_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, refused_part: int, taken: list[tuple[bytes, bool]]
) -> None:
    # After a refused part libzmq drops the rest of its message, up to the part that ends it; when
    # the refused part was that one, nothing is left to end.
    socket = ScriptedSocket({refused_part})
    assert not link_with(monkeypatch, socket).send(b"frame", b"header", [b"1", b"2"])
    assert socket.taken == taken


def test_a_link_that_refuses_for_long_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(link, "monotonic", lambda: now)
    second = ScriptedSocket(set())
    sending = link_with(monkeypatch, ScriptedSocket({1, 2, 5, 6, 7}), second)
    assert not sending.send(b"frame", b"header", [])
    now += 4.9
    assert not sending.send(b"frame", b"header", [])
    assert sending.send(b"frame", b"header", [])  # which begins the count again
    now += 10
    assert not sending.send(b"frame", b"header", [])
    now += 5
    assert not sending.send(b"frame", b"header", [])
    assert second.taken == []
    now += 0.1
    assert not sending.send(b"frame", b"header", [])
    assert sending.send(b"frame", b"header", [])
    assert second.taken == [(b"frame", MORE), (b"header", LAST)]

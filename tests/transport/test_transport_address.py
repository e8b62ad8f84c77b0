"""Addresses, and which of them may be bound in plain text."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from transport.address import (
    Address,
    check_bind,
    check_peer,
    is_loopback,
    parse_address,
    resolve_bind,
)
from transport.interface import BadAddress, InsecureAddress, TransportError

LOCAL = [
    "tcp://127.0.0.1:7001",
    "tcp://127.255.0.3:0",
    "tcp://localhost:7001",
    "tcp://LocalHost:7001",
    "tcp://[::1]:7001",
    "tcp://[::ffff:127.0.0.1]:7001",
]
OPEN = [
    "tcp://0.0.0.0:7001",
    "tcp://*:7001",
    "tcp://[::]:7001",
    "tcp://10.0.0.1:7001",
    "tcp://[fe80::1%eth0]:7001",
    "tcp://[::ffff:10.0.0.1]:7001",
    "tcp://node-1.example.org:7001",
    "tcp://node_1:7001",
    "tcp://localhost.example.org:7001",
    "tcp://localhost.:7001",
    "tcp://0x7f000001:7001",
]
BAD: list[Any] = [
    "",
    "127.0.0.1:7001",
    "tcp://127.0.0.1",
    "tcp://127.0.0.1:",
    "tcp://127.0.0.1:x",
    "tcp://127.0.0.1:-1",
    "tcp://127.0.0.1:65536",
    "tcp://127.0.0.1:7001/",
    "tcp://127.0.0.1:7001 ",
    "tcp://127.0.0.1:7001\n",
    "tcp://127.0.0.1:\u0661",
    "tcp://:7001",
    "tcp://::1:7001",
    "tcp://[127.0.0.1]:7001",
    "tcp://[]:7001",
    "tcp://[::1:7001",
    "tcp://[::g]:7001",
    "tcp://10.0.0.256:7001",
    "tcp://127.1:7001",
    "tcp://2130706433:7001",
    "tcp://1.2.3.4;127.0.0.1:7001",
    "tcp://-a:7001",
    "tcp://a..b:7001",
    "tcp://" + "a" * 64 + ":7001",
    "tcp://" + "a." * 127 + ":7001",
    "tcp://user@host:7001",
    "TCP://127.0.0.1:7001",
    "ipc:///tmp/x",
    "inproc://x",
    None,
    b"tcp://127.0.0.1:7001",
    7001,
]


@pytest.mark.parametrize("text", [*LOCAL, *OPEN])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_address(text)) == text


def test_an_address_is_a_host_and_a_port() -> None:
    assert parse_address("tcp://n1.example:7001") == Address("n1.example", 7001)
    assert parse_address("tcp://[::1]:7001") == Address("::1", 7001)
    assert parse_address("tcp://[::1]:7001").is_ipv6
    assert not parse_address("tcp://n1.example:7001").is_ipv6


@pytest.mark.parametrize("text", BAD, ids=repr)
def test_what_is_no_address_is_named(text: Any) -> None:
    with pytest.raises(BadAddress) as raised:
        parse_address(text)
    assert repr(text) in str(raised.value)
    assert isinstance(raised.value, TransportError)


@pytest.mark.parametrize("text", LOCAL)
def test_only_this_machine_reaches_a_loopback_address(text: str) -> None:
    assert is_loopback(text)
    assert check_bind(text, plaintext=False) == parse_address(text)


@pytest.mark.parametrize("text", OPEN)
def test_an_address_that_others_reach_is_bound_by_name_only(text: str) -> None:
    assert not is_loopback(text)
    with pytest.raises(InsecureAddress, match="plaintext=True") as raised:
        check_bind(text, plaintext=False)
    assert text in str(raised.value)
    truthy: Any = 1
    with pytest.raises(InsecureAddress):
        check_bind(text, plaintext=truthy)
    assert check_bind(text, plaintext=True) == parse_address(text)


@pytest.mark.parametrize(
    "text", ["tcp://10.0.0.1:7001", "tcp://node-1:7001", "tcp://[::1]:7001", "tcp://localhost:1"]
)
def test_a_peer_has_a_machine_and_a_port(text: str) -> None:
    assert check_peer(text) == parse_address(text)


@pytest.mark.parametrize(
    "text",
    ["tcp://*:7001", "tcp://0.0.0.0:7001", "tcp://[::]:7001", "tcp://10.0.0.1:0", "10.0.0.1:7001"],
)
def test_a_peer_is_not_everywhere_nor_anywhere(text: str) -> None:
    with pytest.raises(BadAddress) as raised:
        check_peer(text)
    assert text in str(raised.value)


@pytest.mark.parametrize("host", ["10.0.0.1", "*", "::1"])
def test_what_is_no_name_is_not_looked_up(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    assert resolve_bind(Address(host, 7001)) == Address(host, 7001)
    assert resolve_bind(Address("localhost", 7001)) == Address("127.0.0.1", 7001)


def test_a_name_to_bind_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        if host != "node-1.example":
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert resolve_bind(Address("node-1.example", 7001)) == Address("10.0.0.1", 7001)
    with pytest.raises(BadAddress, match=r"tcp://node-2\.example:7001.*not known"):
        resolve_bind(Address("node-2.example", 7001))

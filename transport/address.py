"""Addresses: `tcp://host:port`, and which of them may be bound in plain text.

A host is an IPv4 address, an IPv6 address in brackets, a host name or, to bind only, `*` for every
interface. Port 0, to bind only, lets the system choose.

1. An address that other machines can reach is bound only when `plaintext=True` is said by name.
2. In doubt an address is not loopback: of all names only `localhost` is.
"""

from __future__ import annotations

import re
import socket
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

from transport.interface import BadAddress, InsecureAddress

__all__ = ["Address", "check_bind", "check_peer", "is_loopback", "parse_address", "resolve_bind"]

HOST_CHARACTERS_MAX: Final = 253
PORT_MAX: Final = 65_535
EVERY_INTERFACE: Final = "*"

_ADDRESS = re.compile(r"tcp://(\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:/]+)):(?P<port>[0-9]{1,5})")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_LABEL}\.)*{_LABEL}\.?")
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?[0-9]+\.?")


class Address(NamedTuple):
    """A parsed address; `str` gives it back as `tcp://host:port`."""

    host: str
    """Without brackets."""
    port: int
    """0 to 65535."""

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.is_ipv6 else self.host
        return f"tcp://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse `tcp://host:port`. Raises BadAddress."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadAddress(f"{text!r} is no address: write tcp://host:port, or tcp://[::1]:port")
    address = Address(match["six"] or match["host"], int(match["port"]))
    if address.port > PORT_MAX:
        raise BadAddress(f"{text!r}: the port is above {PORT_MAX}")
    if match["six"]:
        known = isinstance(_ip(address.host), IPv6Address)
    else:
        known = address.host == EVERY_INTERFACE or _is_ipv4_or_name(address.host)
    if not known:
        raise BadAddress(f"{text!r}: {address.host!r} is neither an IP address nor a host name")
    return address


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address. Raises BadAddress.

    True for 127.0.0.0/8, ::1 and `localhost`; false for `*` and every other name.
    """
    return _is_loopback(parse_address(address).host)


def check_bind(address: str, *, plaintext: bool) -> Address:
    """Return the parsed address if it may be bound.

    Raises BadAddress, and InsecureAddress when other machines can reach the address and `plaintext`
    is not True.
    """
    parsed = parse_address(address)
    if plaintext is not True and not _is_loopback(parsed.host):
        raise InsecureAddress(
            f"{address}: other machines can reach this address, and what passes is neither "
            "encrypted nor authenticated; bind a loopback address, or pass plaintext=True by name "
            "if everyone on that network is trusted"
        )
    return parsed


def check_peer(address: str) -> Address:
    """Return the parsed address if it can be connected to. Raises BadAddress."""
    parsed = parse_address(address)
    if parsed.port == 0:
        raise BadAddress(f"{address}: a peer's address needs the port that it listens on")
    ip = _ip(parsed.host)
    if parsed.host == EVERY_INTERFACE or (ip is not None and ip.is_unspecified):
        raise BadAddress(f"{address}: this is every interface; a peer's address names its machine")
    return parsed


def resolve_bind(address: Address) -> Address:
    """Return the address with its host name looked up, if it is one. Raises BadAddress."""
    if address.host == EVERY_INTERFACE or _ip(address.host) is not None:
        return address
    if _is_loopback(address.host):
        return address._replace(host="127.0.0.1")
    try:
        found = socket.getaddrinfo(address.host, address.port, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadAddress(f"{address}: the host to bind is not found ({error})") from error
    return address._replace(host=str(found[0][4][0]))


def _is_loopback(host: str) -> bool:
    ip = _ip(host)
    if ip is None:
        return host.lower() == "localhost"
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return ip.is_loopback or (mapped is not None and mapped.is_loopback)


def _is_ipv4_or_name(host: str) -> bool:
    if _ENDS_IN_NUMBER.fullmatch(host):
        # Not a name but an IPv4 address, perhaps a mistyped or disguised one: 10.0.0.256, 127.1.
        return isinstance(_ip(host), IPv4Address)
    return len(host) <= HOST_CHARACTERS_MAX and _NAME.fullmatch(host) is not None


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        return None

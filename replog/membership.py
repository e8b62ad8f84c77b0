"""Membership: who takes part and which sets of them decide. A value, the same on every node."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from replog.entry import check_node_id
from replog.errors import PeerFault
from replog.quorum import Quorums, sized

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1
MEMBERS_MAX = 64
CLUSTER_ID_BYTES = 16
BACKUP_CLUSTER_ID = bytes(CLUSTER_ID_BYTES)
"""Of a backup, in place of a cluster's: see `replog.store.copying`."""


class Membership(NamedTuple):
    """The voters and their quorums."""

    quorums: Quorums

    @property
    def voters(self) -> frozenset[str]:
        """Ids of the nodes that vote."""
        return self.quorums.voters

    def others(self, node: str) -> tuple[str, ...]:
        """Every member but this one, sorted."""
        return tuple(sorted(self.voters - {node}))

    def encode(self) -> bytes:
        """The bytes kept in the store and hashed into the cluster id; equal for equal values."""
        packed: bytes = msgpack.packb(
            (FORMAT, sorted(self.voters), self.quorums.elect, self.quorums.commit)
        )
        return packed


def decode_membership(data: bytes) -> Membership:
    """The value that `Membership.encode` wrote. Raises `PeerFault` for anything else."""
    try:
        form, voters, elect, commit = msgpack.unpackb(data, max_array_len=MEMBERS_MAX)
        if form != FORMAT or type(elect) is not int or type(commit) is not int:
            raise PeerFault(f"membership of format {form!r} is not known here")
        membership = Membership(sized({check_node_id(voter) for voter in voters}, elect, commit))
    except PeerFault:
        raise
    except Exception as error:  # msgpack raises several unrelated classes for bad bytes
        raise PeerFault(f"membership is malformed: {error}") from error
    if membership.encode() != data:
        raise PeerFault("membership is not in its canonical form")
    return membership


def cluster_id(agreement: str, membership: Membership, name: str = "") -> bytes:
    """Sixteen bytes that differ for another agreement, other quorums, other bootstrap members or
    another `name`: nodes of different clusters never mistake each other for members."""
    parts: Iterable[object] = (agreement, membership.encode(), name)
    return blake2b(msgpack.packb(parts), digest_size=CLUSTER_ID_BYTES).digest()

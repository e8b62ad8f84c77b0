"""What a replica does on the words that both protocols share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from replog.config import RUN_BYTES_MAX
from replog.entry import RECORDS_PER_RUN_MAX, Run
from replog.errors import PeerFault
from replog.messages import (
    CompareDigest,
    DigestAnswer,
    Diverged,
    Expected,
    FetchPiece,
    Forward,
    MachineDigest,
    Meet,
    Met,
    NotLeader,
    OfferSnapshot,
    ReadAnswer,
    ReadRequest,
    Refused,
    SnapshotPart,
)
from replog.replica.comparison import diverged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.agreement import Core, Message
    from replog.replica.catchup import Catchup
    from replog.replica.comparison import Comparison
    from replog.replica.delivery import Delivery
    from replog.replica.intake import Intake
    from replog.replica.introduction import Introduction
    from replog.replica.machines import MachineComparison
    from replog.replica.origin import Origin
    from replog.replica.outbox import Outbox
    from replog.replica.reads import Reads
    from replog.store.interface import Identity


class Parts(NamedTuple):
    """The parts of a replica that trunk messages speak to."""

    identity: Identity
    core: Core
    delivery: Delivery
    origin: Origin
    intake: Intake
    reads: Reads
    comparison: Comparison
    machines: MachineComparison
    introduction: Introduction
    catchup: Catchup
    outbox: Outbox


class Trunk:
    """Receives trunk messages. Raises `PeerFault` for what no correct member sends."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._producers: dict[str, int] = {}
        """Lives of the nodes that have forwarded to this one."""
        self._receivers: dict[type[Message], Callable[[int, str, Any], None]] = {
            Expected: self._expected,
            NotLeader: self._not_leader,
            ReadRequest: self._read_request,
            ReadAnswer: self._read_answer,
            CompareDigest: self._compare_digest,
            DigestAnswer: self._digest_answer,
            Diverged: self._diverged,
            MachineDigest: self._machine_digest,
            Meet: self._meet,
            Met: self._met,
            Refused: self._refused,
            FetchPiece: self._fetch_piece,
        }

    def receive(
        self, now: int, sender: str, life: int, message: Message, bodies: Sequence[bytes]
    ) -> None:
        """One message of a bound sender, with the bodies of its runs."""
        if isinstance(message, Forward):
            self._forward(sender, life, message, bodies)
        elif isinstance(message, OfferSnapshot | SnapshotPart):
            self._take_of_snapshot(now, sender, message, bodies)
        elif bodies:
            raise PeerFault(f"{type(message).__name__} travels with {len(bodies)} parts")
        else:
            self._receivers[type(message)](now, sender, message)

    def announce_expected(self) -> None:
        """The node leads and takes runs from now on: whoever waits need not wait for its timer."""
        for node in sorted(self._producers):
            self._answer_expected(node, self._producers[node])

    def _forward(self, sender: str, life: int, message: Forward, bodies: Sequence[bytes]) -> None:
        parts = self._parts
        if len(bodies) != len(message.counts) or not bodies:
            raise PeerFault(f"{len(bodies)} bodies for {len(message.counts)} runs")
        for count, body in zip(message.counts, bodies, strict=True):
            if not 0 < count <= RECORDS_PER_RUN_MAX or not 0 < len(body) <= RUN_BYTES_MAX:
                raise PeerFault(f"a run of {count} records in {len(body)} bytes")
        self._producers[sender] = life
        if not parts.intake.is_open:
            leadership = parts.core.leadership
            if leadership.leader != parts.identity.node:
                parts.outbox.post(sender, NotLeader(leadership.leader))
            return
        sequence = message.first_sequence
        for count, body in zip(message.counts, bodies, strict=True):
            run = Run(sender, life, sequence, count, len(body))
            sequence += count
            if not parts.intake.take(run, body) and sequence > parts.intake.expected(sender, life):
                break
        if parts.intake.expected(sender, life) != sequence:
            self._answer_expected(sender, life)

    def _answer_expected(self, node: str, life: int) -> None:
        parts = self._parts
        expected = parts.intake.expected(node, life)
        parts.outbox.post(node, Expected(life, expected))

    def _expected(self, _: int, sender: str, message: Expected) -> None:
        parts = self._parts
        leader = parts.core.leadership.leader
        if message.life == parts.identity.life and sender == leader:
            parts.origin.expected(message.next_sequence)

    def _not_leader(self, now: int, sender: str, message: NotLeader) -> None:
        # The one named may be out of date, and then what this node's core knows is a way back.
        leaders = (message.leader, self._parts.core.leadership.leader)
        self._parts.origin.redirect(now, sender, leaders)

    def _read_request(self, now: int, sender: str, message: ReadRequest) -> None:
        self._parts.reads.requested(now, sender, message)

    def _read_answer(self, _: int, __: str, message: ReadAnswer) -> None:
        self._parts.reads.answered(message)

    def _compare_digest(self, _: int, sender: str, message: CompareDigest) -> None:
        digest = self._parts.delivery.digest_at(message.index)
        self._parts.outbox.post(sender, DigestAnswer(message.index, digest))

    def _digest_answer(self, _: int, sender: str, message: DigestAnswer) -> None:
        for to, verdict in self._parts.comparison.answered(sender, message):
            self._parts.outbox.post(to, verdict)

    def _diverged(self, _: int, __: str, message: Diverged) -> None:
        digest = self._parts.delivery.digest_at(message.index)
        if digest and digest != message.digest:
            raise diverged(message)

    def _machine_digest(self, _: int, sender: str, message: MachineDigest) -> None:
        self._parts.machines.heard(sender, message)

    def _meet(self, _: int, sender: str, message: Meet) -> None:
        parts = self._parts
        met = Met(message.store_id)
        parts.outbox.post_after_all(sender, met, more=parts.introduction.has_changes)

    def _met(self, _: int, sender: str, message: Met) -> None:
        self._parts.introduction.met(sender, message)

    def _refused(self, _: int, sender: str, message: Refused) -> None:
        self._parts.introduction.refused(sender, message)

    def _fetch_piece(self, now: int, sender: str, message: FetchPiece) -> None:
        self._parts.catchup.giving.fetched(now, sender, message)

    def _take_of_snapshot(
        self, now: int, sender: str, message: OfferSnapshot | SnapshotPart, bodies: Sequence[bytes]
    ) -> None:
        parts = self._parts
        if len(bodies) != 1:
            raise PeerFault(f"{type(message).__name__} travels with {len(bodies)} parts")
        if not parts.introduction.done:
            return
        if isinstance(message, SnapshotPart):
            parts.catchup.receiving.part(now, sender, message, bodies[0])
        else:
            index = parts.delivery.index
            parts.catchup.receiving.offered(now, sender, message, bodies[0], index)

"""What a replica does on the words that both protocols share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replog.entry import RECORDS_PER_RUN_MAX, Run
from replog.errors import PeerFault
from replog.messages import (
    CompareDigest,
    DigestAnswer,
    Diverged,
    Expected,
    Forward,
    Meet,
    Met,
    NotLeader,
    ReadAnswer,
    ReadRequest,
    Refused,
)
from replog.replica.comparison import Comparison, diverged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replog.agreement import Core, Message
    from replog.config import Limits
    from replog.replica.delivery import Delivery
    from replog.replica.intake import Intake
    from replog.replica.introduction import Introduction
    from replog.replica.origin import Origin
    from replog.replica.reads import Reads
    from replog.store.interface import Identity


class Parts(NamedTuple):
    """The parts of a replica that trunk messages speak to."""

    identity: Identity
    limits: Limits
    core: Core
    delivery: Delivery
    origin: Origin
    intake: Intake
    reads: Reads
    comparison: Comparison
    introduction: Introduction
    post: Callable[[str, Message], None]
    """Sends a message that promises nothing."""
    post_after_writes: Callable[[str, Message], None]
    """Sends a message once everything decided so far is durable."""


class Trunk:
    """Receives trunk messages. Raises `PeerFault` for what no correct member sends."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._producers: dict[str, int] = {}
        """Lives of the nodes that have forwarded to this one since it last led."""

    def receive(
        self, now: int, sender: str, life: int, message: Message, bodies: Sequence[bytes]
    ) -> None:
        """One message of a bound sender, with the bodies of its runs."""
        parts = self._parts
        if bodies and not isinstance(message, Forward):
            raise PeerFault(f"{type(message).__name__} travels with {len(bodies)} parts")
        match message:
            case Forward():
                self._forward(now, sender, life, message, bodies)
            case Expected():
                self._expected(sender, message)
            case NotLeader():
                if sender == parts.core.leadership.leader:
                    parts.origin.redirect(now, message.leader)
            case ReadRequest():
                parts.reads.requested(now, sender, message)
            case ReadAnswer():
                parts.reads.answered(message)
            case CompareDigest():
                digest = parts.delivery.digest_at(message.index)
                parts.post(sender, DigestAnswer(message.index, digest))
            case DigestAnswer():
                for to, verdict in parts.comparison.answered(sender, message):
                    parts.post(to, verdict)
            case Diverged():
                self._diverged(message)
            case Meet():
                parts.post_after_writes(sender, Met(message.store_id))
            case Met():
                parts.introduction.met(sender, message)
            case Refused():
                parts.introduction.refused(sender, message)

    def announce_expected(self) -> None:
        """This node leads and takes runs from now on: whoever waits need not wait for its timer."""
        for node in sorted(self._producers):
            self._answer_expected(node, self._producers[node])

    def _forward(
        self, now: int, sender: str, life: int, message: Forward, bodies: Sequence[bytes]
    ) -> None:
        parts = self._parts
        if len(bodies) != len(message.counts) or not bodies:
            raise PeerFault(f"{len(bodies)} bodies for {len(message.counts)} runs")
        for count, body in zip(message.counts, bodies, strict=True):
            if not 0 < count <= RECORDS_PER_RUN_MAX or not 0 < len(body) <= parts.limits.run_bytes_max:
                raise PeerFault(f"a run of {count} records in {len(body)} bytes")
        self._producers[sender] = life
        if not parts.intake.is_open:
            leadership = parts.core.leadership
            if leadership.leader != parts.identity.node:
                parts.post(sender, NotLeader(leadership.leader, leadership.epoch))
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
        parts.post(node, Expected(life, expected, parts.core.leadership.epoch))

    def _expected(self, sender: str, message: Expected) -> None:
        parts = self._parts
        leadership = parts.core.leadership
        if message.life == parts.identity.life and sender == leadership.leader:
            parts.origin.expected(message.next_sequence)

    def _diverged(self, message: Diverged) -> None:
        digest = self._parts.delivery.digest_at(message.index)
        if digest and digest != message.digest:
            raise diverged(message)

"""Scenarios: plain-text transcripts of a cluster. Knows no protocol.

A scenario file is a list of blocks with an empty line between them::

    # Comments say what is shown, and where the rule comes from.
    propose n1 x
    persist n1
    ----
    n1 writes 2: 2:x@1
    n1 has write 2 on disk

Above the dashes stand commands, below them what they print. `pytest --rewrite-scenarios` records
what is printed now; read the difference before you commit it. `quietly` before a command drops what
it prints.

Commands, with n1 for any member::

    cluster n1 n2 n3 [setting=value]    start a cluster with empty disks
    boot n1 [promise=4/n2] [log=1,1.n2*3,-] [commit=2]
                                        start n1 anew with this disk: a promise (epoch 4 of n2), a
                                        log by the epochs of its entries (of the first member, if
                                        not said; - for a gap), how much was delivered
    campaign n1                         let n1's timeout pass, for n1 alone
    tick n1 MS                          let time pass for n1 alone
    wait MS                             let time pass for all; nothing is delivered or persisted
    run MS                              let time pass for all; everything is delivered and persisted
    propose n1 x y z                    propose records
    read n1                             ask for a confirmed read
    persist n1 [COUNT]                  make n1's oldest writes durable (all of them)
    deliver n1 [FILTER] [again]         deliver what is in the network for n1; `again` also keeps it
    drop n1 [FILTER]                    lose what is in the network for n1
    stabilize [n1 n2]                   persist and deliver until nothing is left
    crash n1, restart n1                forget what is not persisted; come back from the disk
    partition n1 | n2 n3                cut the links between the groups
    cut n1 n2 [both]                    cut one link, one way or both
    refuse n1 n2                        as `cut`, but n1's host notices
    heal                                mend all links
    entries_per_send COUNT              hosts cut sends to so many entries
    compact n1 [INDEX]                  take a snapshot of all that n1's disk has delivered, and
                                        drop the entries up to this index (all that it stands for)
    show [n1]                           print role, commit index, disk and log

FILTER: from=n2, only=Vote (message class), first=COUNT, backwards (latest first).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from replog.agreement import Agreement
from replog.entry import Epoch, Kind
from replog.errors import InvariantBroken
from tests.agreement.harness import Cluster, Member, Packet
from tests.agreement.image import Image, Stored, Value, placeholder

MakeAgreement = Callable[..., Agreement]
MakeWatch = Callable[[], Callable[[Cluster, Member], None]]

DASHES = "----"


class Block(NamedTuple):
    """Commands with their comments, and what they printed when it was recorded."""

    commands: tuple[str, ...]
    expected: tuple[str, ...]

    def render(self, printed: list[str]) -> str:
        """The block's text with this output."""
        return "\n".join([*self.commands, DASHES, *printed] if printed else self.commands)


def parse(text: str) -> list[Block]:
    """The blocks of a scenario file."""
    blocks = []
    for chunk in text.strip().split("\n\n"):
        lines = chunk.strip("\n").split("\n")
        at = lines.index(DASHES) if DASHES in lines else len(lines)
        blocks.append(Block(tuple(lines[:at]), tuple(lines[at + 1 :])))
    return blocks


class Scenario:
    """Runs the commands of one file."""

    def __init__(
        self,
        make_agreement: MakeAgreement,
        make_watch: MakeWatch,
        *,
        number_is_enough: bool = False,
    ) -> None:
        self._make_agreement = make_agreement
        self._make_watch = make_watch
        self._number_is_enough = number_is_enough
        self._printed: list[str] = []
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        assert self._cluster is not None, "a scenario begins with `cluster`"
        return self._cluster

    def run(self, block: Block) -> list[str]:
        """What the block's commands print."""
        self._printed = []
        for line in block.commands:
            if not line.startswith("#"):
                self._command(line)
        return self._printed

    def _command(self, line: str) -> None:
        verb, *words = line.split()
        quiet = verb == "quietly"
        if quiet:
            verb, *words = words
        kept = len(self._printed)
        command = getattr(self, f"command_{verb}", None)
        assert command is not None, f"no such command: {line}"
        try:
            command(*words)
        except InvariantBroken as broken:
            self._print(f"{words[0]} stops: {broken}")
            self.cluster.crash(words[0])
        if quiet:
            del self._printed[kept:]

    def _print(self, line: str) -> None:
        self._printed.append(line)

    # --- commands ---------------------------------------------------------------------------------

    def command_cluster(self, *words: str) -> None:
        names = [word for word in words if "=" not in word]
        settings = {key: int(value) for key, value in options(words).items()}
        self._cluster = Cluster(
            self._make_agreement(**settings),
            names,
            number_is_enough=self._number_is_enough,
            watch=self._make_watch(),
            write_line=self._print,
        )

    def command_boot(self, name: str, *words: str) -> None:
        settings = options(words)
        epochs = epochs_of(settings.get("log", ""), self.cluster.names[0])
        entries = [
            None if epoch is None else Stored(epoch, Value(Kind.RECORDS, placeholder(index, epoch)))
            for index, epoch in enumerate(epochs, start=1)
        ]
        number, _, node = settings.get("promise", "0").partition("/")
        disk = Image(Epoch(int(number), node), entries)
        disk.position = int(settings.get("commit", "0"))
        self.cluster.crash(name)
        self.cluster.members[name].disk = disk
        self.cluster.restart(name)

    def command_campaign(self, name: str) -> None:
        self.cluster.campaign(name)

    def command_tick(self, name: str, duration_ms: str) -> None:
        self.cluster.now += int(duration_ms)
        self.cluster.tick(name)

    def command_wait(self, duration_ms: str) -> None:
        self.cluster.wait(int(duration_ms))

    def command_run(self, duration_ms: str) -> None:
        self.cluster.wait(int(duration_ms), self.cluster.stabilize)

    def command_propose(self, name: str, *values: str) -> None:
        for value in values:
            if self.cluster.propose(name, value) is None:
                self._print(f"{name} takes no {value}")

    def command_read(self, name: str) -> None:
        if self.cluster.read(name) is None:
            self._print(f"{name} takes no read")

    def command_persist(self, name: str, count: str | None = None) -> None:
        self.cluster.persist(name, count if count is None else int(count))

    def command_deliver(self, name: str, *words: str) -> None:
        cluster = self.cluster
        packets = self._take(name, words)
        if "again" in words:
            cluster.network += packets
        if "backwards" in words:
            packets.reverse()
        for packet in packets:
            self._print(f"{name} <- {packet.source}: {type(packet.message).__name__}")
            cluster.deliver(packet)

    def command_drop(self, name: str, *words: str) -> None:
        for packet in self._take(name, words):
            self._print(f"{name} never gets {packet.source}'s {type(packet.message).__name__}")

    def command_stabilize(self, *names: str) -> None:
        self.cluster.stabilize(names or None)

    def command_crash(self, name: str) -> None:
        self.cluster.crash(name)

    def command_restart(self, name: str) -> None:
        self.cluster.restart(name)

    def command_partition(self, *words: str) -> None:
        self.cluster.partition([group.split() for group in " ".join(words).split("|")])

    def command_cut(self, source: str, target: str, both: str = "") -> None:
        self.cluster.cut |= {(source, target), (target, source)} if both else {(source, target)}

    def command_refuse(self, source: str, target: str) -> None:
        self.cluster.refused.add((source, target))

    def command_heal(self) -> None:
        self.cluster.heal()

    def command_entries_per_send(self, count: str) -> None:
        self.cluster.entries_per_packet_max = int(count)

    def command_compact(self, name: str, index: str = "") -> None:
        end = self.cluster.snapshot(name)
        self.cluster.compact(name, int(index or end))

    def command_show(self, *names: str) -> None:
        describe = self.cluster.words
        for name in names or self.cluster.names:
            member = self.cluster.members[name]
            on_disk = f", on disk {describe.log(member.disk)}"
            if not member.up:
                self._print(f"{name} is down{on_disk}")
                continue
            if (member.disk.entries, member.disk.base) == (
                member.memory.entries,
                member.memory.base,
            ):
                on_disk = ""
            self._print(
                f"{name} is {describe.leadership(member.core.leadership)}, "
                f"commit {member.memory.position}, log {describe.log(member.memory)}{on_disk}"
            )

    def _take(self, name: str, words: tuple[str, ...]) -> list[Packet]:
        settings = options(words)
        left = int(settings.get("first", "1000000"))

        def wanted(packet: Packet) -> bool:
            nonlocal left
            fits = (
                packet.target == name
                and packet.source == settings.get("from", packet.source)
                and type(packet.message).__name__
                == settings.get("only", type(packet.message).__name__)
                and left > 0
            )
            left -= fits
            return fits

        return self.cluster.take(wanted)


def options(words: tuple[str, ...]) -> dict[str, str]:
    """The words of the form key=value."""
    return dict(word.split("=", 1) for word in words if "=" in word)


def epochs_of(words: str, node: str) -> list[Epoch | None]:
    """`1,-,2.n3*2` -> [epoch 1 of `node`, None, epoch 2 of n3, epoch 2 of n3]."""
    epochs: list[Epoch | None] = []
    for word in filter(None, words.split(",")):
        name, _, times = word.partition("*")
        number, _, of = name.partition(".")
        epoch = None if name == "-" else Epoch(int(number), of or node)
        epochs += [epoch] * int(times or "1")
    return epochs

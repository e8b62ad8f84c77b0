"""THE contract: what an agreement layer and its host owe each other.

::

   application
       | append / read / follow / barrier
   ReplicatedLog          any thread, any event loop
       | submissions, waiters (one wake-up per batch)
   Node                   one thread; owns sockets and timers; never touches the disk
       | receive  tick  submit  durable                                            ^ Effects
   Replica                pure; owns bytes, producers, delivery, forwarding, reads   |
       | receive(now, sender, message, metas)  tick(now)  propose(kind, size)       ^ Ready
   Core                   pure; owns positions: epochs, votes, quorums, windows      |
       +-----------------------------------------------------------------------------+
              |                                  |
      writer thread: one LMDB transaction     sends that promise nothing leave at once
      per group of writes                     (a leader's entries go out before its own disk write)
              |
              +--> durable(write_id) -> sends that promise something leave; the leader counts itself
              |
      delivery: committed entries, in index order, once -> waiters, readers

Rules of this contract:

1. A core is a function of its inputs: no clock, socket, file, thread, logger or global randomness.
   `now` is a monotonic integer of milliseconds, and never falls.
2. A message that makes a promise leaves only after the promise is durable. Write ids are
   cumulative: `durable(w)` means every write up to `w`. A promising message waits for the last
   write issued so far, whether or not its own step wrote. Only these wait for none
   (`after_write_id` 0): a leader's own entries, heartbeats, commit notices, read-round
   replies, pre-votes.
3. A core decides on its in-memory state, every earlier step included, never on what happens to be
   durable; only the counting of its own vote and its own copy waits for `durable`. The disk is
   always a prefix of the steps.
4. Promise and entries of one `Write` are applied in the order promise, truncation, install,
   entries, all or nothing, and writes in the order of their ids.
5. Cores handle positions, not payloads: of an entry a core sees its `Meta`.
6. What a core remembers of the log is bounded: index -> epoch in runs.
7. A fault of this program raises `InvariantBroken` and stops the node. A peer's fault raises
   `PeerFault` from `receive` before any state has changed; the host drops and counts the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from replog.entry import NO_EPOCH, Epoch, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence, Set
    from random import Random

    from replog.membership import Membership

Message = tuple[object, ...]
"""Any message: a `NamedTuple` class whose annotated fields `codec` turns into bytes."""


class Meta(NamedTuple):
    """What a core sees of an entry."""

    index: int  # type: ignore[assignment]
    epoch: Epoch
    kind: Kind
    size: int
    """Length of the stored bytes."""


class EntryRef(NamedTuple):
    """Names one entry's bytes: an index alone does not, for an entry may be overwritten.

    At or below the commit index nothing is overwritten any more: there, `NO_EPOCH` means whatever
    this node has, and the message names the epoch it was stored under.
    """

    index: int  # type: ignore[assignment]
    epoch: Epoch


class WriteEntry(NamedTuple):
    """An entry to write at `index` under `epoch`; its bytes are those of (index, source_epoch)."""

    index: int  # type: ignore[assignment]
    epoch: Epoch
    source_epoch: Epoch


class Write(NamedTuple):
    """One step's durable changes, applied all or nothing, in the order of rule 4."""

    write_id: int
    """Grows by one with each write, from 1."""
    promise: Epoch | None
    """The new promise: (term, vote) of Raft, ballot of Paxos."""
    truncate_from: int | None
    """Drop every entry from this index on."""
    entries: tuple[WriteEntry, ...]
    """Ascending by index."""
    install: int | None = None
    """Begin the log anew behind this index, that of the snapshot given to `Core.install`: every
    entry up to it goes."""


class Send(NamedTuple):
    """A message to a peer, with the entries that travel beside it."""

    to: str
    message: Message
    after_write_id: int
    """Leaves once this write is durable; 0: at once."""
    entries: tuple[EntryRef, ...] = ()
    """Consecutive indexes. The host may send only the first of them, cut by size, and reports with
    `Core.sent` how far it came, or with `Core.lost` that nothing left. Until then the core gives
    out no further send with entries for this peer."""


class ReadState(NamedTuple):
    """A confirmed read: whatever was committed when `Core.read(token)` was called lies at or below
    `index` (dissertation section 6.4)."""

    token: int
    index: int  # type: ignore[assignment]


class Ready(NamedTuple):
    """Everything a core wants done since it was last asked. Reading this is reading the system."""

    writes: tuple[Write, ...]
    """To be made durable, in order."""
    sends: tuple[Send, ...]
    """To be sent, each once its write is durable."""
    commit_index: int
    """Inclusive: every entry up to here will never change. Never falls."""
    reads: tuple[ReadState, ...]
    """Reads confirmed since."""
    reads_failed: tuple[int, ...]
    """Tokens of reads that this node can no longer confirm (it lost the leadership)."""
    snapshots_for: tuple[str, ...] = ()
    """Peers that need entries which this node has compacted: offer them its newest snapshot. Asked
    for again, at most once a retransmission, until a peer shows that it needs none."""


class Leadership(NamedTuple):
    """Who leads, as seen by this node now: level-triggered state, not an event."""

    role: str
    """follower, candidate or leader (each protocol's own words)."""
    leader: str | None
    """The leader of `epoch`, if this node knows it."""
    epoch: Epoch
    """The highest epoch this node obeys; `epoch.node` is the leader's id, "" when unknown."""
    first_index: int
    """While this node leads: index of the first entry of its own epoch (every index below was
    adopted). Otherwise 0."""


class Restored(NamedTuple):
    """What a core starts from: the durable state of the node, and nothing else."""

    promise: Epoch
    """(0, "") on a fresh store."""
    epochs: tuple[tuple[int, Epoch], ...]
    """(first index, epoch) of each run of entries of one epoch, ascending; `NO_EPOCH` for a gap.
    The first run begins right behind `base`."""
    last_index: int
    """`base.index` for an empty log."""
    commit_index: int
    """A lower bound of what is committed: what this node has delivered."""
    membership: Membership
    base: EntryRef = EntryRef(0, NO_EPOCH)
    """The last entry that is compacted; index 0 while the log is whole."""
    accepted: tuple[EntryRef, ...] = ()
    """The entries above `commit_index`, ascending, with gaps where a protocol leaves them."""


class Core(Protocol):
    """One member's part in the agreement. Not re-entrant, one thread.

    After any sequence of inputs the host calls `ready` until it is empty.
    """

    @property
    def deadline(self) -> int | None:
        """When `tick` wants to be called, in the time of `now`; None: not at all."""

    @property
    def leadership(self) -> Leadership:
        """Role and leader as seen now."""

    @property
    def last_index(self) -> int:
        """Index of the last entry in memory, durable or not; the base's for an empty log."""

    @property
    def has_room(self) -> bool:
        """Whether `propose` would take an entry of records now."""

    def receive(self, now: int, sender: str, message: Message, metas: Sequence[Meta]) -> None:
        """A message of this agreement from another member, with the metas of its entries.

        Raises `PeerFault` for a message that no correct member sends.
        """

    def tick(self, now: int) -> None:
        """Time has passed. Harmless before `deadline`."""

    def propose(self, kind: Kind, size: int) -> EntryRef | None:
        """Offer one entry of `size` bytes; None when this node does not lead or its window is full.

        A leadership begins with no-ops, offered by the host again and again while this node leads
        without a `first_index`: Raft takes one; Multi-Paxos takes one for each gap among what it
        adopted, and one after it. None here means: not yet. Until then records are refused.
        The host must have the bytes ready under the returned position before it calls `ready`.
        """

    def read(self, now: int, token: int) -> bool:
        """Ask for a confirmed read (once per token); False when this node does not lead."""

    def durable(self, now: int, write_id: int) -> None:
        """Every write up to `write_id` is on disk."""

    def sent(self, to: str, last_index: int, size: int) -> None:
        """Of the last send with entries to this peer, those up to `last_index` left."""

    def lost(self, to: str) -> None:
        """A send with entries to this peer did not leave, or the transport dropped it."""

    def compacted(self, index: int) -> None:
        """The host keeps no entry up to `index`, which is delivered, from here on.

        Harmless at or below an earlier one. Whoever needs such an entry is named in
        `Ready.snapshots_for` from now on.
        """

    def install(self, now: int, base: EntryRef) -> bool:
        """A snapshot is here, whole and checked, that stands for every entry up to `base`.

        True: one `Write` of the next `ready` installs it, and everything up to it counts as
        committed. Entries above it are kept where they may be right: those that follow an entry of
        this epoch at this index (Raft, section 7), or all of them (Multi-Paxos).
        False: this node knows as much already, or cannot need it.
        """

    def epoch_at(self, index: int) -> Epoch:
        """The epoch of a committed entry that is not compacted, or of the base itself; `NO_EPOCH`
        where this agreement does not tell committed entries apart."""

    def has_ready(self) -> bool:
        """Whether `ready` would return anything new."""

    def ready(self) -> Ready:
        """Everything wanted since the last call; clears it."""


class Agreement(Protocol):
    """What an application hands to `replog.open`: an agreement layer, chosen and tuned."""

    @property
    def name(self) -> str:
        """The word stored in each directory and frame: `raft`, `paxos`."""

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """Every message class, in the fixed order that numbers them on the wire."""

    @property
    def control_messages(self) -> Set[type[Message]]:
        """Those that must not wait behind entries: votes, heartbeats, acknowledgements."""

    @property
    def epoch_is_its_number(self) -> bool:
        """Whether a number has one leader at most, and the promise of a number names whom it is
        given to; otherwise each node has an epoch of its own for every number. For whoever judges
        a run."""

    def membership(self, voters: Set[str]) -> Membership:
        """The bootstrap membership of these voters with this agreement's quorums.

        Raises `ConfigError` when the quorums need not intersect.
        """

    def core(self, node: str, restored: Restored, now: int, random: Random) -> Core:
        """One member's core, starting from its durable state."""

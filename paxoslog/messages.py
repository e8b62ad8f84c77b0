"""Every message of Multi-Paxos.

==============  =======================  ============================================  ===========
message         from -> to               purpose                                       waits for
==============  =======================  ============================================  ===========
PrePrepare      pre-proposer -> all      would you promise to obey this ballot?        nothing
PrePromise      member -> sender         the answer                                    nothing
Prepare         proposer -> all          obey this ballot (PMS 2.2, phase 1a)          own promise
Promise         acceptor -> proposer     I obey it, and have accepted this (1b)        last write
FetchAccepted   leader -> acceptor       send what you accepted there                  nothing
AcceptedValues  acceptor -> leader       it travels beside this                        nothing
Accept          leader -> acceptor       accept what travels beside it (phase 2a)      nothing
Accepted        acceptor -> leader       I have accepted it: a promise (2b)            last write
AskAccepted     leader -> acceptor       what of this have you accepted?               nothing
Missing         acceptor -> leader       not this, at your ballot                      nothing
Heartbeat       leader -> all            I lead; this much is chosen                   nothing
HeartbeatReply  acceptor -> leader       heard, and no higher ballot is obeyed here    nothing
Committed       leader -> acceptor       this much is chosen                           nothing
Nack            acceptor -> sender       I obey a higher ballot than yours             last write
FetchChosen     learner -> member        send what is chosen there (PMS 2.3)           nothing
Chosen          member -> learner        it travels beside this                        nothing
==============  =======================  ============================================  ===========

"waits for": the write that must be durable before the message leaves (`replog.agreement`, rule 2).

`ballot` is the one that the message belongs to; in a `PrePromise` and a `Nack`, the highest that
the sender obeys. `commit_index` is the sender's own, but for what a leader sends: there it ends
where the receiver has been sent, or has accepted, everything that this leader proposes.
"""

from __future__ import annotations

from typing import NamedTuple

from replog.entry import Epoch

ENTRIES_PER_SEND_MAX = 64
ACCEPTED_AHEAD_MAX = 256
"""An acceptor accepts nothing that lies further above its commit index."""
REPORTED_AHEAD_MAX = 8 * ACCEPTED_AHEAD_MAX
"""No promise reports anything further above its commit index. More than above, for after a restart
the commit index is the last that the host has written down."""


class PrePrepare(NamedTuple):
    """Asks whether a prepare would succeed, so that a hopeless one deposes nobody."""

    ballot: Epoch
    """The one that the sender would prepare."""
    round: int
    """Numbers the sender's questions; the answer repeats it."""


class PrePromise(NamedTuple):
    """Answers `PrePrepare`. Promises nothing and changes nothing at its sender."""

    ballot: Epoch
    round: int
    granted: bool
    commit_index: int


class Prepare(NamedTuple):
    """Asks to obey `ballot` at every index at once (PMMC, section 2.3)."""

    ballot: Epoch
    first_index: int
    """The first index not known to the sender as chosen: it asks for what was accepted from here
    on."""


class Promise(NamedTuple):
    """The sender obeys `ballot`, and this is all that it has accepted so far above `commit_index`.

    Of what lies at or below it reports nothing but that it is chosen.
    """

    ballot: Epoch
    commit_index: int
    indexes: tuple[int, ...]
    """Ascending; at most `REPORTED_AHEAD_MAX` above `commit_index`."""
    ballots: tuple[Epoch, ...]
    """The ballot of the proposal accepted at each index."""


class FetchAccepted(NamedTuple):
    """Asks an acceptor for values that it has reported, at consecutive indexes."""

    ballot: Epoch
    first_index: int
    ballots: tuple[Epoch, ...]
    """As reported, one for each index."""


class AcceptedValues(NamedTuple):
    """The first of the values that were asked for travel beside it, under their old ballots."""

    ballot: Epoch


class Accept(NamedTuple):
    """Asks to accept the entries that travel beside it."""

    ballot: Epoch
    commit_index: int


class Accepted(NamedTuple):
    """The sender has accepted, at `ballot`, everything from `first_index` to `last_index`: that is
    on its disk. Both are the ends of all that it has accepted there without a gap.

    `first_index` = `last_index` + 1: nothing but what `commit_index` says.
    """

    ballot: Epoch
    first_index: int
    last_index: int
    commit_index: int
    """Up to here everything is chosen, and the sender accepts nothing any more."""


class AskAccepted(NamedTuple):
    """Asks for `Accepted` and `Missing` anew: entries or answers may have been lost."""

    ballot: Epoch
    first_index: int
    last_index: int


class Missing(NamedTuple):
    """The sender has accepted something above `first_index` at `ballot`, or was asked, but has not
    received what was proposed at `first_index`."""

    ballot: Epoch
    first_index: int
    commit_index: int


class Heartbeat(NamedTuple):
    """Keeps acceptors from preparing ballots of their own, and asks whether they still obey."""

    ballot: Epoch
    commit_index: int
    round: int
    """The latest round of reads of this ballot; the reply repeats it."""


class HeartbeatReply(NamedTuple):
    """Answers `Heartbeat`."""

    ballot: Epoch
    round: int
    commit_index: int


class Committed(NamedTuple):
    """Tells an acceptor at once what it would else learn from the next accept or heartbeat."""

    ballot: Epoch
    commit_index: int


class Nack(NamedTuple):
    """Refuses whatever belongs to a lower ballot (PMMC, section 2.3: preempted)."""

    ballot: Epoch


class FetchChosen(NamedTuple):
    """Asks for the entries from `first_index` to `last_index`, as far as the receiver knows them to
    be chosen."""

    first_index: int
    last_index: int


class Chosen(NamedTuple):
    """What travels beside it is chosen, under the ballots that the sender stores it with."""

    commit_index: int


MESSAGES = (
    PrePrepare,
    PrePromise,
    Prepare,
    Promise,
    FetchAccepted,
    AcceptedValues,
    Accept,
    Accepted,
    AskAccepted,
    Missing,
    Heartbeat,
    HeartbeatReply,
    Committed,
    Nack,
    FetchChosen,
    Chosen,
)
"""In the order that numbers them on the wire: only ever append to it."""
CARRIERS = (AcceptedValues, Accept, Chosen)
"""Those that entries travel beside, at least one."""

"""Every message of Raft.

=================  ====================  =============================================  ===========
message            from -> to            purpose                                        waits for
=================  ====================  =============================================  ===========
RequestPreVote     pre-candidate -> all  would you vote for me? (dissertation 9.6)      nothing
PreVote            member -> sender      the answer                                     nothing
RequestVote        candidate -> all      vote for me (paper 5.2)                        last write
Vote               member -> sender      the answer: a promise                          last write
AppendEntries      leader -> follower    store what travels beside it (paper 5.3)       nothing
Appended           follower -> leader    stored up to here: a promise                   last write
AppendRefused      follower -> leader    our logs differ; look there                    last write
Heartbeat          leader -> follower    I lead; this much is committed (paper 5.2)     nothing
HeartbeatReply     follower -> leader    heard, and no higher term known (6.4)          nothing
Committed          leader -> follower    this much is committed                         nothing
=================  ====================  =============================================  ===========

"waits for": the write that must be durable before the message leaves (`replog.agreement`, rule 2).

`term` is the sender's current term, but for `RequestPreVote`, which asks about the next one.
"""

from __future__ import annotations

from typing import NamedTuple


class RequestPreVote(NamedTuple):
    """Asks whether a campaign would win, so that a hopeless one raises no term (9.6)."""

    term: int
    """The term the sender would campaign in: its own plus one."""
    round: int
    """Numbers the sender's pre-vote rounds; the answer repeats it."""
    last_index: int
    last_term: int


class PreVote(NamedTuple):
    """Answers `RequestPreVote`. Promises nothing and changes nothing at its sender."""

    term: int
    round: int
    granted: bool


class RequestVote(NamedTuple):
    """Asks for the vote of `term` (paper, figure 2)."""

    term: int
    last_index: int
    last_term: int


class Vote(NamedTuple):
    """Answers `RequestVote`."""

    term: int
    granted: bool


class AppendEntries(NamedTuple):
    """Replicates the entries that travel beside it, from `previous_index` + 1 on (figure 2).

    Without entries it only asks whether the logs match up to `previous_index`.
    """

    term: int
    previous_index: int
    previous_term: int
    commit_index: int
    """The leader's: the follower may commit no more of it than this append has verified."""


class Appended(NamedTuple):
    """The sender's log is on its disk and equals the leader's up to `match_index`."""

    term: int
    match_index: int


class AppendRefused(NamedTuple):
    """The sender's log does not hold `previous_index` under the leader's term.

    The hint skips a whole term of the sender at a time (paper, end of section 5.3): it is the
    sender's highest entry at or below `previous_index` whose term is not above the one asked for.
    """

    term: int
    previous_index: int
    hint_index: int
    hint_term: int


class Heartbeat(NamedTuple):
    """Keeps followers from campaigning, and asks whether they still know no higher term."""

    term: int
    commit_index: int
    """No more than the leader knows this follower to hold."""
    round: int
    """The latest round of reads in this term; the reply repeats it."""


class HeartbeatReply(NamedTuple):
    """Answers `Heartbeat`; and, with round 0, whatever a leader of a past term sends."""

    term: int
    round: int


class Committed(NamedTuple):
    """Tells a follower at once what it would else learn from the next append or heartbeat."""

    term: int
    commit_index: int
    """No more than the leader knows this follower to hold."""


MESSAGES = (
    RequestPreVote,
    PreVote,
    RequestVote,
    Vote,
    AppendEntries,
    Appended,
    AppendRefused,
    Heartbeat,
    HeartbeatReply,
    Committed,
)
"""In the order that numbers them on the wire: only ever append to it."""

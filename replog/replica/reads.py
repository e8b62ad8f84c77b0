"""Barriers: a point in the log that covers everything committed before the call.

Rules of this file (dissertation section 6.4; both agreements confirm in the same way):

1. A barrier is confirmed by a round that starts after the call, never by an earlier one.
2. It holds once this node has delivered up to the confirmed index.
3. A request or answer that is lost is asked again under a new token on a timer.
4. An answer counts only in the life that asked: an earlier life's was confirmed too early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replog.messages import ReadAnswer, ReadRequest

if TYPE_CHECKING:
    from replog.agreement import Core, ReadState
    from replog.replica.effects import Ticket

REMOTE_READS_MAX = 4096
"""Requests of other nodes under confirmation; more are dropped, and their origins ask again."""


class Reads:
    """The barriers of this node, and the requests of others while it leads."""

    def __init__(self, node: str, life: int, core: Core, retry_ms: int) -> None:
        self._node = node
        self._life = life
        self._core = core
        self._retry_ms = retry_ms
        self._next_token = 1
        self._asking: list[Ticket] = []
        """Not yet in a round."""
        self._asked: dict[int, list[Ticket]] = {}
        self._remote: dict[int, tuple[str, ReadRequest]] = {}
        self._confirmed: list[tuple[int, list[Ticket]]] = []
        self.deadline: int | None = None

    def barrier(self, ticket: Ticket) -> None:
        """Ask for a barrier; `passed` returns the ticket when it holds."""
        self._asking.append(ticket)

    def wants(self, now: int) -> bool:
        """Whether `requests` should be called."""
        return bool(self._asking) or (self.deadline is not None and now >= self.deadline)

    def requests(self, now: int, leader: str | None) -> list[tuple[str, ReadRequest]]:
        """Start a round for what is asked, here or at the leader; the messages to send."""
        if self.deadline is not None and now >= self.deadline:
            self.ask_again()
        if not self._asking or leader is None:
            return []
        token = self._next_token
        self._next_token += 1
        if leader == self._node and not self._core.read(now, token):
            return []
        self._asked[token] = self._asking
        self._asking = []
        self.deadline = now + self._retry_ms
        return [] if leader == self._node else [(leader, ReadRequest(self._life, token))]

    def ask_again(self) -> None:
        """The leadership changed, or no answer came: every open barrier needs a new round."""
        for tickets in self._asked.values():
            self._asking += tickets
        self._asked.clear()
        self.deadline = None

    def requested(self, now: int, sender: str, message: ReadRequest) -> None:
        """Another node asks; it is answered once confirmed. Silence makes it ask again."""
        if len(self._remote) < REMOTE_READS_MAX and self._core.read(now, self._next_token):
            self._remote[self._next_token] = (sender, message)
            self._next_token += 1

    def confirmed(self, state: ReadState) -> tuple[str, ReadAnswer] | None:
        """The core confirmed a read: the answer to send, if another node asked."""
        if state.token in self._remote:
            sender, request = self._remote.pop(state.token)
            return sender, ReadAnswer(request.life, request.token, state.index)
        self.answered(ReadAnswer(self._life, state.token, state.index))
        return None

    def failed(self, token: int) -> None:
        """The core can no longer confirm this read."""
        self._remote.pop(token, None)
        self._asking += self._asked.pop(token, [])

    def answered(self, message: ReadAnswer) -> None:
        """A read of this node is confirmed at an index."""
        if message.life != self._life:
            return
        tickets = self._asked.pop(message.token, None)
        if tickets is not None:
            self._confirmed.append((message.index, tickets))
        if not self._asked:
            self.deadline = None

    def passed(self, applied_index: int) -> list[Ticket]:
        """The barriers that hold now."""
        if not self._confirmed:
            return []
        held = [
            ticket for at, tickets in self._confirmed if at <= applied_index for ticket in tickets
        ]
        self._confirmed = [item for item in self._confirmed if item[0] > applied_index]
        return held

    def drain(self) -> list[Ticket]:
        """At the end: every barrier that does not hold yet."""
        self.ask_again()
        tickets = self._asking + [ticket for _, some in self._confirmed for ticket in some]
        self._asking, self._confirmed = [], []
        return tickets

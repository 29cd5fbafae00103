"""Whatever either side does within a call, and in whatever order: no fault, one end, nothing left."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extenbot.errors import Misuse
from extenbot.sip.message import Request, Response, write
from tests.sip.called import Called
from tests.sip.wire import ANSWER, FLOW, OFFER, request

TIMER = "Supported: timer\r\nSession-Expires: 90\r\n"
REFRESH = "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\nAllow: UPDATE\r\n"
NOTIFY = "Event: refer\r\nSubscription-State: {}\r\nContent-Type: message/sipfrag\r\n"
#: what the PBX may send within the call
THEIRS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("INVITE", {"body": OFFER}),
    ("INVITE", {}),
    ("INVITE", {"body": OFFER, "headers": TIMER}),
    ("UPDATE", {"body": OFFER}),
    ("UPDATE", {"headers": REFRESH}),
    ("INFO", {"headers": "Content-Type: application/dtmf\r\n", "body": b"5"}),
    ("PRACK", {"headers": "RAck: 1 1 INVITE\r\n"}),
    ("NOTIFY", {"headers": NOTIFY.format("active"), "body": b"SIP/2.0 180 Ringing\r\n"}),
    ("NOTIFY", {"headers": NOTIFY.format("terminated"), "body": b"SIP/2.0 200 OK\r\n"}),
    ("NOTIFY", {"headers": NOTIFY.format("terminated"), "body": b"SIP/2.0 503 No\r\n"}),
    ("BYE", {}),
    ("OPTIONS", {}),
)
CODES = (100, 180, 200, 202, 401, 408, 422, 481, 486, 488, 491, 500, 501, 503)
STEPS = st.one_of(
    st.tuples(st.just("theirs"), st.integers(0, len(THEIRS) - 1)),
    st.tuples(st.just("reply"), st.sampled_from(CODES)),
    st.tuples(st.just("wait"), st.sampled_from((0.5, 5, 32, 45, 60))),
    st.tuples(
        st.sampled_from(("ring", "answer", "bye", "refer", "refuse", "ack", "cancel", "deny", "allow")), st.just(0)
    ),
)
FIRST = ("", "Require: 100rel\r\n", TIMER, REFRESH)


class AnyOrder(Called):
    @settings(max_examples=400, deadline=None)
    @given(st.sampled_from(FIRST), st.booleans(), st.booleans(), st.lists(STEPS, max_size=14))
    def test_any_order(self, headers: str, late: bool, up: bool, steps: list[tuple[str, Any]]) -> None:
        """The call is told of one end at most, after which nothing comes; no timer and no session is left."""
        self.setUp()
        self.invited(body=b"" if late else OFFER, headers=headers)
        self.number, self.asked = 1, list[Request]()
        if up:
            for step in ("ring", "answer", "ack"):
                self.step(step, 0)
        for name, value in steps:
            self.step(name, value)
        over = [told for told in self.told if told[0] in ("ended", "cancelled")]
        self.assertLessEqual(len(over), 1)
        self.assertEqual(self.told[-1:] if over else [], over)
        self.step("refuse", 0)
        self.step("bye", 0)
        self.nothing_left()
        self.assertEqual(self.stack.transactions.counters["fault"], 0)

    def step(self, name: str, value: Any) -> None:
        session = self.stack.session
        match name:
            case "theirs":
                method, more = THEIRS[value]
                self.number += 1
                tag = session.dialog.local_tag
                self.stack.transactions.received(request(method, self.number, to_tag=tag, **more), FLOW)
            case "reply":
                self.answer_ours(value)
            case "wait":
                self.clock.advance(value)
            case "ring":
                session.ring()
            case "answer":
                session.answer(ANSWER)
            case "bye":
                session.bye()
            case "refuse":
                session.refuse(486)
            case "refer":
                with contextlib.suppress(Misuse):  # there is no call, or another transfer
                    session.refer("200")
            case "ack":
                for number in range(1, self.number + 1):
                    tag = session.dialog.local_tag
                    ack = request("ACK", number, branch=f"ack{number}", to_tag=tag, body=ANSWER)
                    self.stack.transactions.received(ack, FLOW)
            case "cancel":
                self.stack.transactions.received(request("CANCEL", branch="INVITE1"), FLOW)
            case "deny" | "allow":
                self.stack.listener.reply = 488 if name == "deny" else ANSWER
        self.asked += [m for m in self.wire.messages() if isinstance(m, Request) and m.method != "ACK"]

    def answer_ours(self, code: int) -> None:
        """Answer the oldest request of ours that waits."""
        if not self.asked:
            return
        sent = self.asked.pop(0)
        response = Response(code)
        response.headers = {name: sent.all(name) for name in ("via", "from", "to", "call-id", "cseq")}
        response.set("contact", "<sip:pbx@192.0.2.10>")
        response.set("min-se", "200")
        self.stack.transactions.received(write(response), FLOW)

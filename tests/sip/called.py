"""A call that the PBX makes to us, for tests of what happens in it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.interfaces import Flow
from extenbot.sip.answering import Answering
from extenbot.sip.message import Request, Response, write
from tests.clock import Clock
from tests.sip.wire import ANSWER, FLOW, OFFER, Recorder, request, stack


class Called(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Recorder(self.clock)
        self.stack = stack(self.clock, self.wire)
        self.told = self.stack.listener.told

    def received(self, data: bytes, flow: Flow = FLOW) -> list[str]:
        self.stack.transactions.received(data, flow)
        return self.wire.take()

    def run_for(self, seconds: float) -> list[str]:
        self.clock.pump([0.125] * round(seconds / 0.125))
        return self.wire.take()

    def invited(self, body: bytes = OFFER, flow: Flow = FLOW, **more: Any) -> Answering:
        self.received(request("INVITE", body=body, **more), flow)
        return self.stack.session

    def ours(self, method: str, number: int, **more: Any) -> list[str]:
        """A request of the PBX within the call."""
        return self.received(request(method, number, to_tag=self.stack.session.dialog.local_tag, **more))

    def talking(self, **more: Any) -> Answering:
        session = self.invited(**more)
        session.answer(ANSWER)
        self.ours("ACK", 1, branch="ack")
        self.assertEqual(self.told, [("acked", b"")])
        self.told.clear()
        return session

    def reply(
        self, code: int, words: str = "OK", flow: Flow = FLOW, body: bytes = b"", **headers: str
    ) -> tuple[Request, bytes]:
        """Answer the one request of ours that was sent; it, and the answer to send it once more."""
        (sent,) = [m for m in self.wire.messages() if isinstance(m, Request) and m.method != "ACK"]
        response = Response(code, words)
        response.headers = {name: sent.all(name) for name in ("via", "from", "to", "call-id", "cseq")}
        for name, value in headers.items():
            response.set(name.replace("_", "-"), value)
        response.body = body
        data = write(response)
        self.stack.transactions.received(data, flow)
        return sent, data

    def notify(self, number: int, status: str, state: str = "active", event: str = "refer") -> list[str]:
        headers = f"Event: {event}\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag;version=2.0\r\n"
        return self.ours("NOTIFY", number, headers=headers, body=f"SIP/2.0 {status}\r\n".encode())

    def nothing_left(self) -> None:
        """Everything is released when all transactions have run out."""
        self.clock.pump([0.5] * 200)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.stack.sessions), 0)

"""Values that several tests store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from extenbot.interfaces import CallRecord, Event, Flow, Line
from extenbot.sip.registrar import Binding

BINDING = Binding(
    username="1000000001",
    contact="sip:1000000001@10.8.0.1:5060;line=abcd",
    instance="",
    reg_id="",
    call_id="reg@10.8.0.1",
    cseq=7,
    flow=Flow("UDP", ("127.0.0.1", 5060), ("10.8.0.1", 5060)),
    expires_at=2_000_000_000.0,
    q="",
    user_agent="FPBX-16",
    registered_at=1_900_000_000.0,
)


def record(account_id: str, bot_id: str = "b", **changes: Any) -> CallRecord:
    """A call with a transcript and a timeline."""
    made = CallRecord(
        id="c1",
        bot_id=bot_id,
        account_id=account_id,
        sip_call_id="4b1d3f@10.8.0.1",
        caller="+4930123456",
        caller_name="Ada",
        dialled="openai",
        peer="10.8.0.1:5060",
        started=1_900_000_000.0,
        answered=1_900_000_001.5,
        ended=1_900_000_041.0,
        codec="PCMA",
        end_reason="the caller hung up",
        packets_sent=2000,
        packets_received=1990,
        packets_lost=10,
        jitter_ms=3.25,
        transcript=(Line("bot", "Hello.", 1.6), Line("caller", "Grüß Gott <b>!", 4.0), Line("bot", "And", 6.0, True)),
        usage={"input_tokens": 12, "output_tokens": 34},
        events=(Event(0.0, "invited", {"peer": "10.8.0.1:5060"}), Event(41.0, "ended", {"reason": "bye"})),
        cost=0.0625,
        trouble="The voice service was lost twice.",
        recorded=True,
    )
    return replace(made, **changes)

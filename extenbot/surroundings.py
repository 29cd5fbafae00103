"""What every call of this process shares, as the service puts it together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from extenbot.interfaces import (
    CallLog,
    Function,
    Json,
    Ledger,
    Playout,
    Record,
    Records,
    RtpPorts,
    Sentences,
    Tokens,
    ToolContext,
    Voice,
    VoiceListener,
    VoiceOrder,
)
from extenbot.media.pacer import Pacer

RunTool = Callable[[Function, Json, ToolContext], Awaitable[str]]
"""Runs a function of a bot; `ToolFailed` with a sentence when it did not work."""


class OpenVoice(Protocol):
    """Finds the back end of a bot and opens a session with it."""

    def __call__(self, order: VoiceOrder, playout: Playout, listener: VoiceListener, log: CallLog) -> Voice: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every call of this process shares."""

    clock: IReactorTime
    now: Callable[[], float]  # unix seconds
    tokens: Tokens
    ports: RtpPorts
    pacer: Pacer
    open_voice: OpenVoice
    run_tool: RunTool
    records: Records
    rtp_timeout: float  # seconds
    ledger: Ledger
    sentences: Sentences
    record: Record

"""What every call of this process shares, as the service puts it together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from extenbot.interfaces import (
    Bot,
    CallLog,
    Exchange,
    Function,
    Json,
    Ledger,
    McpServers,
    Playout,
    Record,
    Records,
    RtpPorts,
    Screening,
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


class Screen(Protocol):
    """Asks the owner of a bot about a call, before it is taken."""

    def __call__(self, bot: Bot, variables: Json, noted: Callable[[Exchange], None]) -> Deferred[Screening] | None:
        """`variables` are those of the call's prompt. None when there is nobody to ask; the answer comes within a
        second or so, an empty one when it does not come from there."""


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
    servers: McpServers
    calls_mcp: Callable[[Bot], bool]  # whether the voice service of a bot can use MCP servers by itself
    screen: Screen
    records: Records
    rtp_timeout: float  # seconds
    ledger: Ledger
    sentences: Sentences
    record: Record

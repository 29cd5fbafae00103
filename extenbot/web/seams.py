"""What the pages need from elsewhere, as Protocols: they import neither the store nor the registrar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail

from extenbot.errors import BackendLost, ToolFailed
from extenbot.interfaces import Bot, CallRecord, Exchange, Flow, Function, Json, LiveCall, McpServer, Registration

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connection:
    """How a PBX reaches us."""

    domain: str
    sip_port: int = 5060
    rtp_ports: range = range(10000, 20001)
    sip_transport: str = "UDP"


class Ran(NamedTuple):
    """What came of a function that was run to try it."""

    exchanges: tuple[Exchange, ...]
    heard: str  # what the model would get
    failed: bool = False
    seconds: float = 0.0


def _cannot_run(*_what: object) -> Deferred[Any]:
    return fail(ToolFailed("This server runs no functions."))


def _cannot_speak(_bot: Bot, _text: str) -> Deferred[str]:
    return fail(BackendLost("lost", "This server has no voice to speak with."))


@dataclass(frozen=True, slots=True)
class Live:
    """What the pages ask of the running service beside its store. None of it blocks but `recording`.

    `calls`         the calls of an account that are up
    `hang_up`       ends one, by account and call id; whether there was one
    `spent_today`   what the bots of an account have cost since midnight (UTC), USD by bot id
    `speak`         has a bot say a sentence and keeps the audio; gives what was really said, or an `ExtenbotError`
    `recording`     where the recording of the call with that id lies when there is one; for `Store.run`
    `erase`         removes that recording; for `Store.run`
    `run_function`  runs a function once, as a call would; what came of it, also of what failed, or an `ExtenbotError`
    `server_tools`  the tools of an MCP server, each {"name", "description", "parameters"}, or an `ExtenbotError`
    `run_tool`      uses one of them, by its name, as `run_function` does
    """

    calls: Callable[[str], Sequence[LiveCall]] = lambda _account_id: ()
    hang_up: Callable[[str, str], bool] = lambda _account_id, _call_id: False
    spent_today: Callable[[str], Mapping[str, float]] = lambda _account_id: {}
    speak: Callable[[Bot, str], Deferred[str]] = _cannot_speak
    recording: Callable[[str], Path | None] = lambda _call_id: None
    erase: Callable[[str], object] = lambda _call_id: None
    run_function: Callable[[Function, Json], Deferred[Ran]] = _cannot_run
    server_tools: Callable[[McpServer], Deferred[tuple[Json, ...]]] = _cannot_run
    run_tool: Callable[[McpServer, str, Json], Deferred[Ran]] = _cannot_run


NOTHING = Live()
"""Nothing is up, nothing was spent, nothing is recorded."""


class Binding(Protocol):
    """A registered contact of a PBX."""

    @property
    def contact(self) -> str: ...

    @property
    def user_agent(self) -> str: ...

    @property
    def flow(self) -> Flow: ...

    @property
    def registered_at(self) -> float: ...

    @property
    def expires_at(self) -> float: ...


class Account(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def email(self) -> str: ...

    @property
    def cap_day(self) -> float: ...


class Accounts(Protocol):
    def add(self, email: str, password: str) -> Account: ...

    def check(self, email: str, password: str) -> Account | None: ...

    def set_cap(self, account_id: str, cap_day: object) -> float: ...

    def change_password(self, account_id: str, old: str, new: str, token: str = "") -> None: ...

    def open_session(self, account_id: str) -> str: ...

    def session(self, token: str) -> Account | None: ...

    def close_session(self, token: str) -> None: ...


class Bots(Protocol):
    def all(self, account_id: str | None = None) -> Sequence[Bot]: ...

    def get(self, bot_id: str, account_id: str | None = None) -> Bot | None: ...

    def add(self, account_id: str, values: Mapping[str, Any]) -> Bot: ...

    def edit(self, bot_id: str, values: Mapping[str, Any]) -> Bot | None: ...

    def remove(self, bot_id: str) -> bool: ...


class Functions(Protocol):
    """Values are text by the names of the fields; of `headers` a line `Name:` keeps the value there was."""

    def all(self, account_id: str) -> Sequence[tuple[Function, str, Sequence[str]]]:
        """Each with its account's id and the ids of its bots."""

    def get(self, function_id: str, account_id: str) -> Function | None: ...

    def add(self, account_id: str, values: Mapping[str, Any]) -> Function: ...

    def edit(self, function_id: str, values: Mapping[str, Any]) -> Function | None: ...

    def remove(self, function_id: str) -> bool: ...


class Servers(Protocol):
    """As `Functions`."""

    def all(self, account_id: str) -> Sequence[tuple[McpServer, str, Sequence[str]]]: ...

    def get(self, server_id: str, account_id: str) -> McpServer | None: ...

    def add(self, account_id: str, values: Mapping[str, Any]) -> McpServer: ...

    def edit(self, server_id: str, values: Mapping[str, Any]) -> McpServer | None: ...

    def remove(self, server_id: str) -> bool: ...


class Calls(Protocol):
    def recent(
        self, account_id: str | None = None, bot_id: str | None = None, limit: int = 50, before: float | None = None
    ) -> Sequence[CallRecord]: ...

    def get(self, call_id: str, account_id: str | None = None) -> CallRecord | None: ...


class Registrations(Protocol):
    def recent(self, bot_id: str, limit: int) -> Sequence[Registration]: ...


class Sentence(Protocol):
    """Something that a bot says word by word, as audio."""

    @property
    def text(self) -> str: ...

    @property
    def how(self) -> str: ...

    @property
    def said(self) -> str: ...

    @property
    def created(self) -> float: ...

    @property
    def seconds(self) -> float: ...

    @property
    def audio(self) -> Mapping[str, bytes]: ...


class Sentences(Protocol):
    def of(self, bot_id: str) -> Sequence[Sentence]:
        """Does not block."""

    def save(self, bot_id: str, text: str, audio: bytes, how: str, said: str) -> None: ...

    def remove(self, bot_id: str, text: str) -> bool: ...


class Store(Protocol):
    """Nearly everything in it blocks: the pages go through `run`, or `change` where bots change."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def bots(self) -> Bots: ...

    @property
    def functions(self) -> Functions: ...

    @property
    def servers(self) -> Servers: ...

    @property
    def calls(self) -> Calls: ...

    @property
    def registrations(self) -> Registrations: ...

    @property
    def sentences(self) -> Sentences: ...

    def run(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]: ...

    async def change(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T: ...

"""Many registered PBXs: how long a start takes, and what it costs that they register again.

    python bench/registrar.py [--bots 10000] [--contacts 5] [--json FILE]

A database of that many bots with their contacts is made, opened and read as the service does; then each bot
registers again once within a minute of a fake clock, with digest. What is printed: seconds and CPU of the start, CPU
of a REGISTER, and how many SQL statements the minute took, of which none may read. No socket is opened.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, insert
from twisted.internet.task import Clock
from twisted.python.failure import Failure

sys.path.insert(0, str(Path(__file__).parent.parent))

from extenbot.interfaces import Flow
from extenbot.settings import Settings
from extenbot.sip.digest import Challenge, Challenger, answer_challenge, strongest
from extenbot.sip.message import Request, read
from extenbot.sip.registrar import Binding, Registrar
from extenbot.store import tables
from extenbot.store.bindings import Bindings
from extenbot.store.database import Database
from extenbot.store.store import Store

MINUTE = 60.0
PASSWORD = "bench-password"
LOOK = 0.01  # seconds of the fake clock between two looks of the thread that writes
BOT = {
    "name": "bench", "kind": "registrar", "model": "sandbox", "voice": "", "domain": "", "ai_url": "", "welcome": "",
    "instruction": "You are the friendly voice of extenbot on the telephone. " * 10, "transfer_uri": "",
    "enabled": True, "auth_id": "", "outbound_proxy": "", "port": 0, "transport": "", "expires": 600, "allowed": "",
    "trusted": "",
}  # fmt: skip


class Reactor(Clock):
    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)


class Pool:
    """What is given to it is done at the next `work`, whose CPU is counted."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self._waiting: list[Callable[[], None]] = []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        def job() -> None:
            began = time.process_time()
            try:
                result = function(*args, **kwargs)
            except Exception:  # noqa: BLE001
                done(False, Failure())
                return
            self.cpu += time.process_time() - began
            done(True, result)

        self._waiting.append(job)

    def work(self) -> bool:
        jobs, self._waiting = self._waiting, []
        for job in jobs:
            job()
        return bool(jobs)


def fill(folder: Path, bots: int, contacts: int) -> None:
    """A database with bots that have instructions and secrets, each with its contacts."""
    database = Database(Settings(data=folder))
    now = time.time()
    with database.change() as connection:
        connection.execute(
            insert(tables.accounts).values(id="a", email="bench@localhost", password_hash="", admin=False, created=now)
        )
        connection.execute(
            insert(tables.bots),
            [
                BOT
                | {"id": f"b{n}", "account_id": "a", "username": name(n), "created": now}
                | {"password_sealed": database.keys.seal(PASSWORD), "token_sealed": database.keys.seal("sk-key")}
                for n in range(bots)
            ],
        )
    Bindings(database).replace({name(n): [binding(n, c, now) for c in range(contacts)] for n in range(bots)})
    database.close()


def name(number: int) -> str:
    return str(1_000_000_000 + number)


def address(number: int, contact: int) -> str:
    return f"10.{number >> 8 & 255}.{number & 255}.{contact + 1}"


def binding(number: int, contact: int, now: float) -> Binding:
    host = address(number, contact)
    flow = Flow("UDP", ("192.0.2.1", 5060), (host, 5060))
    uri = f"sip:{name(number)}@{host}:5060;line=abcd"
    return Binding(name(number), uri, "", "", f"reg-{contact}@{host}", 1, flow, now + 3600, "", "FPBX-16.0.40", now)


def message(number: int, cseq: int, credentials: str = "") -> Request:
    host, user = address(number, 0), name(number)
    authorization = f"Authorization: {credentials}\r\n" if credentials else ""
    made = read(
        (
            f"REGISTER sip:bots.example SIP/2.0\r\nVia: SIP/2.0/UDP {host}:5060;rport;branch=z9hG4bK{number}x{cseq}\r\n"
            f"From: <sip:{user}@bots.example>;tag=a\r\nTo: <sip:{user}@bots.example>\r\nCall-ID: reg-0@{host}\r\n"
            f"CSeq: {cseq} REGISTER\r\nContact: <sip:{user}@{host}:5060;line=abcd>\r\nExpires: 3600\r\n"
            f"Max-Forwards: 70\r\nUser-Agent: FPBX-16.0.40\r\n{authorization}Content-Length: 0\r\n\r\n"
        ).encode()
    )
    assert isinstance(made, Request)
    return made


def measure(folder: Path, bots: int, contacts: int) -> dict[str, Any]:
    fill(folder, bots, contacts)
    clock, pool = Reactor(), Pool()
    epoch = time.time()
    figures: dict[str, Any] = {"bots": bots, "bindings": bots * contacts}
    wall, cpu = time.perf_counter(), time.process_time()

    def lap(what: str) -> None:
        nonlocal wall, cpu
        figures[f"{what}, s"] = round(time.perf_counter() - wall, 2)
        figures[f"{what}, s of CPU"] = round(time.process_time() - cpu, 2)
        wall, cpu = time.perf_counter(), time.process_time()

    began = wall
    store = Store(Settings(data=folder), clock, pool)  # type: ignore[arg-type]
    store.open()
    lap("open and read the bots")
    loaded = store.bindings.load()
    lap("read the bindings")
    registrar = Registrar(clock, lambda: epoch + clock.seconds(), 3600, 60)
    registrar.restore(chain.from_iterable(loaded.values()))
    registrar.on_changed = store.bindings.save
    lap("take the bindings back")
    figures["start, s"] = round(time.perf_counter() - began, 2)
    assert len(registrar.all()) == bots * contacts

    statements: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def said(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement.split()[0].lower())

    challenger = Challenger("bots.example", lambda: epoch + clock.seconds(), b"key", 300)

    def password_of(username: str) -> str | None:
        bot = store.directory.by_username(username)
        return bot.password if bot is not None else None

    spent = 0.0
    for number in range(bots):
        host = address(number, 0)
        flow = Flow("UDP", ("192.0.2.1", 5060), (host, 5060))
        first, cseq = message(number, 2), 3
        try:
            challenger.check(first, host, password_of)
        except Challenge as error:
            challenge = strongest(value for _, value in error.headers)
        credentials = answer_challenge(challenge, "REGISTER", "sip:bots.example", name(number), PASSWORD, "c")
        second = message(number, cseq, credentials)
        before = time.process_time()
        challenger.check(second, host, password_of)
        response = registrar.register(second, name(number), flow)
        spent += time.process_time() - before
        assert len(response.all("contact")) == contacts
        clock.advance(MINUTE / bots)
        if number % max(1, round(bots * LOOK / MINUTE)) == 0:
            pool.work()
    while pool.work():
        pass
    figures["check and register, µs of CPU each"] = round(1e6 * spent / bots)
    figures["write them, s of CPU in a minute"] = round(pool.cpu, 2)
    figures["SQL statements"] = len(statements)
    figures["of them reads"] = sum(word not in ("insert", "delete", "begin", "commit") for word in statements)
    figures["timers"] = len(clock.getDelayedCalls())
    registrar.stop()
    again = Store(Settings(data=folder), clock, pool)  # type: ignore[arg-type]
    again.open()
    refreshed = sum(b.cseq == 3 for b in chain.from_iterable(again.bindings.load().values()))
    assert refreshed == bots, refreshed
    again.close()
    store.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bots", type=int, default=10_000)
    parser.add_argument("--contacts", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="extenbot-bench-") as folder:
        figures = measure(Path(folder), options.bots, options.contacts)
    width = max(map(len, figures))
    print("\n".join(f"{what:<{width}}  {value}" for what, value in figures.items()))
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The webhooks around a call: its bot's owner is asked before it is taken, and told of it afterwards.

Before: a POST of who calls. The answer, within a second, may hold

    variables   an object of values for the instruction and the welcome message
    refuse      why the call is not taken (or true)
    bot         id, username or name of another bot of the same account that shall take it

No answer, or one that makes no sense, changes nothing: a caller does not wait for a broken server.

After: the record of the call, from the outbox (`store.outbox`), until it is accepted by a 2xx.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from extenbot.ai.tools import refusal, written
from extenbot.errors import ToolFailed
from extenbot.interfaces import Bot, Exchange, Json, Outside, Screening, unnoted
from extenbot.store.outbox import Post
from extenbot.store.store import Store
from extenbot.tasks import Tasks

PATIENCE = 1.0
"""Seconds that a caller waits for the owner's answer."""

DELIVERY = 20.0
"""Seconds that a post after a call may take."""

EVERY = 2.0
"""Seconds between two looks into the outbox."""

TOGETHER = 20
"""Posts that are under way at one time."""

OF_ONE_BOT = 5
"""Of these, as many are of one bot: its server may be one that never answers."""

FORGETTING = 3600.0
"""Seconds between two times at which what is too old is forgotten."""

MOST_VARIABLES, LONGEST_VARIABLES = 100, 16_000
"""Of an answer: how many, and how many characters as JSON."""

log = Logger()


def ask(
    outside: Outside, bot: Bot, variables: Json, noted: Callable[[Exchange], None] = unnoted
) -> Deferred[Screening] | None:
    """Ask the bot's owner about a call; None when the bot has no such webhook."""
    if not bot.before_url:
        return None
    return Deferred.fromCoroutine(_asked(outside, bot, variables, noted))


async def _asked(outside: Outside, bot: Bot, variables: Json, noted: Callable[[Exchange], None]) -> Screening:
    body = {
        "version": 1,
        "event": "call.incoming",
        "call": variables.get("call", ""),
        "bot": {"id": bot.id, "name": bot.name},
        **{name: variables.get(name, "") for name in ("caller", "caller_name", "called", "time")},
        "headers": dict(variables.get("headers", {})),
    }
    try:
        reply = await outside.fetch(
            f"before {bot.id}",
            "POST",
            bot.before_url,
            token=bot.hook_token,
            secret=bot.hook_secret,
            body=written(body),
            timeout=PATIENCE,
            noted=noted,
        )
        if not 200 <= reply.status < 300:
            raise ToolFailed(refusal("the webhook", reply))
        return screening(reply.body)
    except ToolFailed as error:
        log.warn("The webhook before calls of bot {bot} was of no use: {why}", bot=bot.username, why=str(error))
        return Screening()


def screening(body: bytes) -> Screening:
    """What an answer means; an empty one means nothing. `ToolFailed` for one that makes no sense."""
    if not body.strip():
        return Screening()
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ToolFailed("its answer is not JSON") from None
    if not isinstance(found, dict):
        raise ToolFailed("its answer is no JSON object")
    variables, refuse, other = found.get("variables", {}), found.get("refuse", ""), found.get("bot", "")
    if not isinstance(variables, dict) or len(variables) > MOST_VARIABLES:
        raise ToolFailed(f'"variables" must be an object of at most {MOST_VARIABLES} values')
    if len(json.dumps(variables)) > LONGEST_VARIABLES:
        raise ToolFailed(f'"variables" must be at most {LONGEST_VARIABLES} characters of JSON')
    if isinstance(refuse, bool):
        refuse = "the bot's owner does not want this call" if refuse else ""
    if not isinstance(refuse, str) or not isinstance(other, str):
        raise ToolFailed('"refuse" and "bot" must be text')
    return Screening(variables, refuse[:200], other)


class Delivery:
    """Empties the outbox between `start` and `stop`, several posts side by side."""

    def __init__(self, store: Store, outside: Outside, clock: Any) -> None:
        self._store, self._outside, self._clock = store, outside, clock
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._forgot_at = float("-inf")
        self._busy: set[str] = set()  # calls that are being told
        self._tasks = Tasks()

    def start(self) -> None:
        """What was left of the last run is due now."""
        self._looking.start(EVERY, now=True)

    async def stop(self) -> None:
        """Leave the rest for the next run."""
        if self._looking.running:
            self._looking.stop()
        await self._tasks.stop()

    def _look(self) -> Deferred[None]:
        return self._tasks.start(self._begin(), "looking into the outbox")

    async def _begin(self) -> None:
        now = self._clock.seconds()
        if now - self._forgot_at >= FORGETTING:
            self._forgot_at = now
            await self._store.run(self._store.outbox.forget)
        free = TOGETHER - len(self._busy)
        if not free:
            return
        for post in await self._store.run(self._store.outbox.due, free, OF_ONE_BOT, frozenset(self._busy)):
            self._busy.add(post.call_id)
            self._tasks.start(self._deliver(post), "a post after a call")

    async def _deliver(self, post: Post) -> None:
        try:
            why = await self._post(post)
            if why:
                log.warn("The webhook after call {call} failed: {why}", call=post.call_id, why=why)
                await self._store.run(self._store.outbox.failed, post, why)
            else:
                await self._store.run(self._store.outbox.accepted, post.call_id)
        finally:
            self._busy.discard(post.call_id)

    async def _post(self, post: Post) -> str:
        """Why it was not accepted; empty when it was."""
        bot = self._store.directory.by_id(post.bot_id)
        if bot is None:
            return "the bot is gone"
        if not bot.after_url:
            return "the bot has no webhook after calls any more"
        try:
            reply = await self._outside.fetch(
                f"after {bot.id}",
                "POST",
                bot.after_url,  # its token is for that one: what was there before may be somebody else's
                token=bot.hook_token,
                secret=bot.hook_secret,
                key=post.call_id,
                body=post.body.encode(),
                timeout=DELIVERY,
            )
        except ToolFailed as error:
            return str(error)
        return "" if 200 <= reply.status < 300 else refusal("the webhook", reply)

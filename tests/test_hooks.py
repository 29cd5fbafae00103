"""The webhooks around a call: what their owner may answer before it, and how they get what is theirs after it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import ToolFailed
from extenbot.hooks import DELIVERY, EVERY, OF_ONE_BOT, PATIENCE, TOGETHER, Delivery, ask, screening
from extenbot.interfaces import Bot, Reply, Screening
from extenbot.store.outbox import PAUSES, Outbox
from tests.store.examples import record
from tests.store.inline import InlinePool, InlineReactor, new_folder, open_store

JSON = "application/json"
EVA = Bot(
    "b1", "a1", "Eva", "registrar", "u", "p", before_url="https://pbx.example/before", hook_token="t", hook_secret="s"
)


class Servers:
    """The servers of owners: each request waits here until a test answers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.waiting: list[Deferred[Reply]] = []

    async def fetch(self, queue: str, method: str, url: str, **more: Any) -> Reply:
        self.asked.append((queue, f"{method} {url}", more))
        waiting: Deferred[Reply] = Deferred()
        self.waiting.append(waiting)
        return await waiting

    def answer(self, status: int = 200, body: Any = None, place: int = 0) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.waiting.pop(place).callback(Reply(status, JSON, data))


class Before(SynchronousTestCase):
    def setUp(self) -> None:
        self.servers = Servers()

    def asked(self) -> Any:
        variables = {"call": "c1", "caller": "100", "caller_name": "Ada", "called": "200", "time": "now", "headers": {}}
        return ask(self.servers, EVA, variables)

    def test_nobody(self) -> None:
        """A bot without such a webhook asks nobody."""
        self.assertIsNone(ask(self.servers, Bot("b", "a", "B", "registrar", "u", "p"), {}))

    def test_asked(self) -> None:
        """The owner is told who calls whom, signed, with the bearer token, and has a second to answer."""
        asked = self.asked()
        [(queue, request, more)] = self.servers.asked
        self.assertEqual((queue, request), ("before b1", "POST https://pbx.example/before"))  # not that of functions
        self.assertEqual((more["token"], more["secret"], more["timeout"]), ("t", "s", PATIENCE))
        body = json.loads(more["body"])
        self.assertEqual((body["caller"], body["caller_name"], body["called"]), ("100", "Ada", "200"))
        self.assertEqual(body["bot"], {"id": "b1", "name": "Eva"})
        self.servers.answer(body={"variables": {"vip": True}, "bot": "Ada"})
        self.assertEqual(self.successResultOf(asked), Screening({"vip": True}, "", "Ada"))

    def test_of_no_use(self) -> None:
        """A server that refuses, is down, late or says nonsense changes nothing, and that is logged."""
        for status, body in ((500, {"refuse": True}), (200, b"{"), (200, []), (200, {"variables": 7}), (302, None)):
            asked = self.asked()
            self.servers.answer(status, body)
            self.assertEqual(self.successResultOf(asked), Screening(), (status, body))
        asked = self.asked()
        self.servers.waiting.pop().errback(ToolFailed("it has not answered within 1 seconds"))
        self.assertEqual(self.successResultOf(asked), Screening())

    def test_answers(self) -> None:
        """Nothing at all means nothing; a refusal may have words or not."""
        for body, found in (
            (b"", Screening()),
            (b"{}", Screening()),
            (b'{"refuse": "Not today"}', Screening(refusal="Not today")),
            (b'{"refuse": false}', Screening()),
        ):
            self.assertEqual(screening(body), found)
        self.assertTrue(screening(b'{"refuse": true}').refusal)
        for wrong in (
            b'{"refuse": 7}',
            b'{"bot": ["x"]}',
            b'{"variables": {"x": "' + b"y" * 20_000 + b'"}}',
            b"[" * 100_000,
            json.dumps({"variables": {str(each): each for each in range(101)}}).encode(),
        ):
            self.assertRaises(ToolFailed, screening, wrong)

    @given(st.binary(max_size=200))
    def test_anything(self, body: bytes) -> None:
        """Whatever comes is an answer, or a sentence."""
        try:
            screening(body)
        except ToolFailed as error:
            self.assertTrue(str(error))


class After(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.servers = InlineReactor(), Servers()
        self.reactor.advance(1_900_000_000)
        self.store = open_store(new_folder(self), self.reactor, InlinePool())
        self.addCleanup(self.store.close)
        self.store.outbox = Outbox(self.store._database, self.reactor.seconds)
        self.store.calls._now = self.reactor.seconds
        self.account = self.store.accounts.add("you@example.org", "correct horse")
        values = {"name": "Eva", "after_url": "https://pbx.example/after", "hook_token": "t", "hook_secret": "s"}
        self.bot = self.store.bots.add(self.account.id, values)
        self.store.directory.load()
        self.delivery = Delivery(self.store, self.servers, self.reactor)

    def ends(self, *calls: str) -> None:
        """These calls have ended."""
        for call in calls:
            self.store.calls.write(record(self.account.id, self.bot.id, id=call))

    def start(self) -> None:
        self.delivery.start()
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(self.delivery.stop())))

    def left(self) -> list[tuple[str, int, str]]:
        return [(post.call_id, post.tries, post.trouble) for post in self.store.outbox.all()]

    def test_delivered(self) -> None:
        """The record is posted, signed, with the bearer token and the call as key; then nothing is left."""
        self.start()
        self.ends("c1")
        self.assertEqual(self.servers.asked, [])
        self.reactor.advance(EVERY)
        [(queue, request, more)] = self.servers.asked
        self.assertEqual((queue, request), (f"after {self.bot.id}", "POST https://pbx.example/after"))
        self.assertEqual((more["token"], more["secret"], more["key"]), ("t", "s", "c1"))
        self.assertEqual(more["timeout"], DELIVERY)
        self.assertEqual(json.loads(more["body"])["call"], "c1")
        self.reactor.advance(EVERY)
        self.assertEqual(len(self.servers.asked), 1)  # it is under way
        self.servers.answer(204)
        self.assertEqual(self.left(), [])

    def test_tried_again(self) -> None:
        """What is not accepted stays, with the reason, and is posted again later."""
        self.ends("c1")
        self.start()
        self.servers.answer(500)
        self.assertEqual(self.left(), [("c1", 1, "the webhook answered with status 500")])
        self.reactor.advance(PAUSES[0] - EVERY)
        self.assertEqual(len(self.servers.asked), 1)
        self.reactor.pump([EVERY, EVERY])
        self.servers.waiting.pop().errback(ToolFailed("the server pbx.example cannot be used: it cannot be reached"))
        self.assertEqual(self.left()[0][1:], (2, "the server pbx.example cannot be used: it cannot be reached"))
        self.reactor.pump([EVERY] * round(PAUSES[1] / EVERY + 1))
        self.servers.answer()
        self.assertEqual(self.left(), [])

    def test_side_by_side(self) -> None:
        """A server that never answers keeps no other bot's waiting; not more than so many at once are under way."""
        bots = [self.bot]
        values = {"after_url": "https://pbx.example/after"}
        bots += [self.store.bots.add(self.account.id, {"name": f"B{n}", **values}) for n in range(4)]
        self.store.directory.load()
        for number in range(OF_ONE_BOT + 1):
            for place, bot in enumerate(bots):
                self.store.calls.write(record(self.account.id, bot.id, id=f"c{number}{place}"))
        self.start()
        self.assertEqual(len(self.servers.waiting), TOGETHER)
        for bot in bots:
            self.assertLessEqual(sum(bot.id in queue for queue, *_ in self.servers.asked), OF_ONE_BOT)
        self.reactor.advance(EVERY)
        self.assertEqual(len(self.servers.waiting), TOGETHER)
        self.servers.answer(place=7)
        self.reactor.advance(EVERY)
        self.assertEqual(len(self.servers.waiting), TOGETHER)
        self.assertEqual(len({more["key"] for _, _, more in self.servers.asked}), TOGETHER + 1)

    def test_moved(self) -> None:
        """What waits goes to the server that the owner names now, and never its token to the one before."""
        self.ends("c1")
        self.store.bots.edit(self.bot.id, {"after_url": "https://new.example/after", "hook_token": "t2"})
        self.store.directory.load()
        self.start()
        [(_, request, more)] = self.servers.asked
        self.assertEqual((request, more["token"]), ("POST https://new.example/after", "t2"))
        self.servers.answer(503)
        self.assertEqual([post.url for post in self.store.outbox.all()], ["https://new.example/after"])
        self.store.bots.edit(self.bot.id, {"after_url": ""})
        self.store.directory.load()
        self.reactor.pump([EVERY] * round(PAUSES[0] / EVERY + 1))
        self.assertEqual(len(self.servers.asked), 1)
        self.assertEqual(self.left(), [("c1", 2, "the bot has no webhook after calls any more")])

    def test_bot_gone(self) -> None:
        """With the bot its posts are gone."""
        self.ends("c1")
        self.store.bots.remove(self.bot.id)
        self.start()
        self.assertEqual((self.servers.asked, self.left()), ([], []))

    def test_stopped(self) -> None:
        """A service that stops in the middle of a post makes it again when it is back."""
        self.ends("c1")
        self.delivery.start()
        self.successResultOf(Deferred.fromCoroutine(self.delivery.stop()))
        self.assertEqual(self.left(), [("c1", 0, "")])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.servers.waiting.clear()
        self.delivery = Delivery(self.store, self.servers, self.reactor)
        self.start()
        self.servers.answer()
        self.assertEqual(self.left(), [])

    def test_database_away(self) -> None:
        """A database that is away for a moment is logged, and looked into again."""
        self.start()
        pool: Any = self.store._pool
        pool.broken = ZeroDivisionError()
        self.reactor.advance(EVERY)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        pool.broken = None
        self.ends("c1")
        self.reactor.advance(EVERY)
        self.assertEqual(len(self.servers.asked), 1)

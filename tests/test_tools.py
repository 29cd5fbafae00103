"""Functions, MCP tools and the webhook before a call, on whole calls: what is run and what the model is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from extenbot.errors import ToolFailed
from extenbot.interfaces import Json, McpServer, Screening
from extenbot.toolbox import LATE
from tests.case import PLAIN, Case
from tests.memory import ADD, Caller, World, bot

NUMBERS: Json = {
    "type": "object",
    "required": ["a", "b"],
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
}
STRICT = replace(ADD, description=json.dumps({"name": "add", "parameters": NUMBERS}))
ASKS = """
after 1 s:
    call add {"a": 2, "b": 3}
on output: tone 600 for 500 ms "It is five."
on response: tone 520 for 300 ms "One moment."
"""
SHOP = McpServer("s1", "shop", "https://mcp.example.org/mcp")


def says(world: World, caller: Caller) -> None:
    """The caller speaks for a second, and the bot has time to answer."""
    caller.hz = 300
    world.run(1)
    caller.hz = 0
    world.run(3)


class Patience(Case):
    """Nobody thinks that the line is dead."""

    def test_waiting(self) -> None:
        """The owner's sentence is said as soon as the function runs, the result when it is there."""
        world, caller = self.begin(ASKS, bot(functions=(replace(ADD, waiting="One moment, please."),)))
        waiting = world.waits("add")
        caller.dial()
        world.run(1.5)
        create = world.voice("response.create")[-1].event["response"]
        self.assertIn('Say exactly: "One moment, please." and nothing else.', create["instructions"])
        self.assertTrue(create["instructions"].startswith(world.call.bot.instruction))
        self.assertEqual(create["tool_choice"], "none")
        self.assertTrue(caller.hears(520))
        waiting.callback("5")
        world.run(1)
        self.assertEqual(world.outputs(), ["5"])
        self.assertTrue(caller.hears(600))
        caller.bye()

    def test_result_first(self) -> None:
        """A function that is quicker than its sentence: only the result is spoken of."""
        world, caller = self.begin(ASKS, bot(functions=(replace(ADD, waiting="One moment, please."),)))
        world.gives("add", "5")
        caller.dial()
        world.run(2.5)
        asked = [said.event["response"].get("metadata", {}).get("purpose") for said in world.voice("response.create")]
        self.assertNotIn("meanwhile", asked)
        self.assertTrue(caller.hears(600))
        self.assertFalse(caller.hears(520))
        caller.bye()

    def test_long(self) -> None:
        """Without a sentence the bot says after two seconds that it takes a moment, and again twelve later."""
        world, caller = self.begin(ASKS, bot(functions=(replace(ADD, timeout=60.0),)))
        waiting = world.waits("add")
        caller.dial()
        for seconds, times in ((2.8, 0), (0.5, 1), (11, 1), (1.5, 2)):
            world.run(seconds)
            self.assertEqual(len(world.voice("response.create")) - 1, times, seconds)
        self.assertIn("takes a while", world.voice("response.create")[-1].event["response"]["instructions"])
        waiting.callback("5")
        world.run(15)
        self.assertEqual(len(world.voice("response.create")), 4)  # the greeting, twice a moment, the result
        caller.bye()

    def test_silent(self) -> None:
        """Where the owner wants that, the model is given the result and says nothing."""
        world, caller = self.begin(ASKS, bot(functions=(replace(ADD, speak=False),)))
        world.gives("add", "5")
        caller.dial()
        world.run(2)
        self.assertEqual(world.outputs(), ["5"])
        self.assertEqual(len(world.voice("response.create")), 1)
        caller.bye()


class Limits(Case):
    def test_late(self) -> None:
        """What outlives its time-out is told as failed; its result stands in the timeline as late, and is not said."""
        world, caller = self.begin(ASKS, bot(functions=(replace(ADD, timeout=3.0, failure="Sorry, not today."),)))
        waiting = world.waits("add")
        caller.dial()
        world.run(4.5)
        self.assertEqual(world.asked[0][2].late, LATE)
        told = "The function failed: it has not answered within 3 seconds."
        self.assertEqual(world.outputs(), [f'{told} Say to the caller: "Sorry, not today."'])
        waiting.callback("5")
        world.run(1)
        self.assertEqual(len(world.outputs()), 1)
        caller.bye()
        record = self.ended(world, "caller hung up")
        [late] = [event.fields for event in record.events if event.what == "tool.late"]
        self.assertEqual((late["name"], late["output"]), ("add", "5"))

    def test_failure(self) -> None:
        """A function that fails: its owner's sentence is what the model is to say."""
        world, caller = self.begin(ASKS, bot(functions=(replace(ADD, failure="I cannot add.", speak=False),)))
        world.gives("add", ToolFailed("the webhook answered with status 500"))
        caller.dial()
        world.run(2)
        why = "The function failed: the webhook answered with status 500."
        self.assertEqual(world.outputs(), [f'{why} Say to the caller: "I cannot add."'])
        self.assertTrue(caller.hears(600))
        caller.bye()

    def test_arguments(self) -> None:
        """Arguments that are not what the schema wants are never sent; the model is told what is wrong."""
        script = 'on greet:\n    call add {"a": "two"}\non output: tone 600 for 500 ms'
        world, caller = self.up(script, bot(functions=(STRICT,)))
        world.run(1)
        [told] = world.outputs()
        self.assertIn("'b' is a required property", told)
        self.assertIn("a: 'two' is not of type 'number'", told)
        self.assertEqual(world.asked, [])
        caller.bye()

    def test_side_by_side(self) -> None:
        """Several at once: they run side by side, and the model gets the results in the order of the calls."""
        script = 'on greet:\n    call add {"a": 1}\n    call sub {"a": 2}\non output: tone 600 for 500 ms'
        world, caller = self.begin(script, bot(functions=(ADD, replace(ADD, id="f2", name="sub", description=""))))
        first, second = world.waits("add"), world.waits("sub")
        caller.dial()
        world.run(0.5)
        self.assertEqual([name for name, _, _ in world.asked], ["add", "sub"])
        keys = [context.key for _, _, context in world.asked]
        self.assertEqual(len(set(keys)), 2)
        second.callback("two")
        world.run(0.5)
        self.assertEqual(world.outputs(), [])
        first.callback("one")
        world.run(0.5)
        self.assertEqual(world.outputs(), ["one", "two"])
        caller.bye()


class Servers(Case):
    """Tools of MCP servers."""

    def tools(self, world: World) -> list[str]:
        """The names that the model knows by now."""
        return [tool.get("name", tool["type"]) for tool in world.voice("session.update")[-1].event["session"]["tools"]]

    def begin(self, script: str = "", *bots: Any, **options: Any) -> tuple[World, Caller]:
        world, caller = super().begin(script, *bots, **options)
        world.servers.list("shop", "order", "price")
        return world, caller

    def test_used(self) -> None:
        """A tool of a server is offered beside the bot's functions, used, and its result spoken of."""
        world, caller = self.begin(ASKS.replace("add", "order"), bot(servers=(SHOP,)))
        world.servers.results["order"] = self.gives("Tea is on its way.")
        caller.dial()
        world.run(2)
        self.assertEqual(self.tools(world)[:3], ["add", "order", "price"])
        self.assertEqual(world.servers.calls, [("shop", "order", {"a": 2, "b": 3})])
        self.assertEqual(world.outputs(), ["Tea is on its way."])
        self.assertTrue(caller.hears(600))
        caller.bye()
        record = self.ended(world, "caller hung up")
        self.assertIn("tool.exchange", [event.what for event in record.events])

    def gives(self, words: str) -> Any:
        async def give(_arguments: Json) -> str:
            return words

        return give

    def test_wrong_arguments(self) -> None:
        """A server's own schema is kept to as well, and before the caller is asked to agree."""
        for approval in (False, True):
            script = 'on greet: call order {"what": 7}\non output: tone 600 for 300 ms'
            world, caller = self.up(script, bot(servers=(replace(SHOP, approval=approval),)))
            world.run(1)
            self.assertEqual(world.servers.calls, [])
            [told] = world.outputs()
            self.assertIn("what: 7 is not of type 'string'", told)
            caller.bye()

    def test_joins(self) -> None:
        """A server that is down does not keep the phone ringing longer than it may; its tools join when it is up."""
        others = McpServer("s2", "bank", SHOP.url), McpServer("s3", "lazy", SHOP.url, wait=0.0)
        world, caller = super().begin("", bot(servers=(SHOP, *others)))
        caller.invite()
        world.run(0.5)
        self.assertEqual(set(world.servers.waiting), {"shop", "bank"})  # nobody ever waits for the third
        world.servers.waiting["shop"].callback(None)  # its second has passed
        world.run(0.4)
        self.assertEqual(caller.codes, [100, 180] if 100 in caller.codes else [180])
        world.servers.waiting["bank"].callback(None)
        world.run(0.5)
        self.assertEqual(caller.codes[-1], 200)
        self.assertNotIn("order", self.tools(world))
        world.servers.list("shop", "order")
        world.run(0.2)
        self.assertIn("order", self.tools(world))
        world.servers.list("shop", "order", "price")
        world.run(0.2)
        self.assertIn("price", self.tools(world))
        caller.bye()
        world.run(3)
        world.servers.list("shop")
        self.assertEqual(world.servers.watched["shop"], [])

    CONSENT = """
    on greet:
        call order {"what": "tea"}
    on output 1: tone 600 for 300 ms "Shall I order tea?"
    on speech:
        heard "yes"
        call caller_decision {"request": "request-1", "agreed": %s}
    on output 2: tone 700 for 300 ms "Done."
    """

    def asks(self, agreed: str, **server: Any) -> tuple[World, Caller]:
        shop = replace(SHOP, approval=True, **server)
        world, caller = self.begin(self.CONSENT % agreed, bot(servers=(shop,), manner=PLAIN))
        world.servers.results["order"] = self.gives("Tea is on its way.")
        caller.dial()
        world.run(1.5)
        return world, caller

    def test_consent(self) -> None:
        """Where the caller must agree the tool is run after a yes, and its result told then."""
        world, caller = self.asks("true")
        self.assertIn("caller_decision", self.tools(world))
        self.assertEqual(world.servers.calls, [])
        [told] = [json.loads(output) for output in world.outputs()]
        self.assertIn("the caller has to agree first", told["status"])
        self.assertEqual(told["what"], 'order {"what": "tea"}')
        says(world, caller)
        self.assertEqual(world.servers.calls, [("shop", "order", {"what": "tea"})])
        self.assertEqual(world.outputs()[1:], ["Tea is on its way."])
        self.assertTrue(caller.hears(700, since=3.0, until=3.4))
        caller.bye()

    def test_no_consent(self) -> None:
        """After a no it is not run."""
        world, caller = self.asks("false")
        says(world, caller)
        self.assertEqual(world.servers.calls, [])
        self.assertEqual(world.outputs()[1:], ["It is not done, as the caller does not want it."])
        caller.bye()

    def test_unclear_consent(self) -> None:
        """What is neither true nor false is no yes; a decision counts once."""
        script = """
        on greet:
            call order {"what": "tea"}
        on speech:
            heard "hm"
            call caller_decision {"request": "request-1", "agreed": "no"}
        on output 2:
            call caller_decision {"request": "request-1", "agreed": false}
        on output 3:
            call caller_decision {"request": "request-1", "agreed": true}
        """
        world, caller = self.up(script, bot(servers=(replace(SHOP, approval=True),)))
        says(world, caller)
        self.assertEqual(world.servers.calls, [])
        self.assertEqual(
            world.outputs()[1:],
            [
                'Say in "agreed" whether the caller agreed: true or false.',
                "It is not done, as the caller does not want it.",
                "Nothing waits for an answer of the caller under this name.",
            ],
        )
        caller.bye()

    def test_made_up_consent(self) -> None:
        """A model that says yes for the caller, who has said nothing, is not believed."""
        script = """
        on greet:
            call order {"what": "tea"}
        on output 1:
            call caller_decision {"request": "request-1", "agreed": true}
        on output 2:
            call caller_decision {"request": "request-7", "agreed": true}
        on output 3: tone 700 for 300 ms
        """
        world, caller = self.up(script, bot(servers=(replace(SHOP, approval=True),)))
        world.run(2)
        self.assertEqual(world.servers.calls, [])
        self.assertEqual(
            world.outputs()[1:],
            [
                "The caller has not answered yet. Ask, and wait for the answer.",
                "Nothing waits for an answer of the caller under this name.",
            ],
        )
        caller.bye()

    def test_provider(self) -> None:
        """Where the voice service calls the server it is told how; what it wants allowed the caller is asked."""
        approval = (
            'send {"type": "response.output_item.done", "event_id": "e1", "response_id": "r9", "output_index": 0, '
            '"item": {"id": "mcpr_1", "type": "mcp_approval_request", "server_label": "shop", "name": "order", '
            '"arguments": "{\\"what\\": \\"tea\\"}"}}'
        )
        script = f"""
        on greet:
            tone 440 for 200 ms "Hello."
        after 1 s: {approval}
        on text: tone 600 for 300 ms "Shall I order tea?"
        on speech:
            heard "yes"
            call caller_decision {{"request": "request-1", "agreed": true}}
        """
        shop = replace(SHOP, by="provider", approval=True, key="k", allowed=("order",))
        world, caller = self.begin(script, bot(servers=(shop,), manner=PLAIN))
        world.provides = True
        world.servers.listed.clear()
        caller.dial()
        world.run(2)
        self.assertEqual((world.servers.waiting, world.servers.watched), ({}, {}))
        [tool] = [each for each in self.provided(world) if each["type"] == "mcp"]
        self.assertEqual(
            (tool["server_label"], tool["require_approval"], tool["authorization"]), ("shop", "always", "k")
        )
        says(world, caller)
        items = [said.event["item"] for said in world.voice("conversation.item.create")]
        [answer] = [item for item in items if item["type"] == "mcp_approval_response"]
        self.assertEqual((answer["approval_request_id"], answer["approve"]), ("mcpr_1", True))
        caller.bye()

    def provided(self, world: World) -> list[Json]:
        tools: list[Json] = world.voice("session.update")[-1].event["session"]["tools"]
        return tools


class Before(Case):
    """The webhook before the answer."""

    def screened(self, found: Screening | None, *bots: Any) -> tuple[World, Caller]:
        world, caller = self.begin("on greet: tone 440 for 1 s", *bots)
        world.screenings["eva"] = Deferred()
        caller.invite(headers="X-Order: 42\r\n")
        world.run(0.5)
        self.assertEqual((caller.codes[-1], world.opened), (180, 0))
        if found is not None:
            world.screenings.pop("eva").callback(found)
            world.run(0.5)
        return world, caller

    def test_variables(self) -> None:
        """What the owner's server knows of the caller stands in the instruction; so do the caller and the time."""
        eva = bot(
            instruction="Caller {{caller}}, {{customer.name or 'new'}}{% if vip %}, a VIP{% endif %}. It is {{time}}.",
            welcome="Hello {{customer.name}}!",
        )
        world, caller = self.screened(Screening({"customer": {"name": "Ada"}, "vip": True}), eva)
        self.assertEqual(caller.codes[-1], 200)
        session = world.voice("session.update")[0].event["session"]
        self.assertRegex(session["instructions"], r"^Caller 100, Ada, a VIP\. It is \w+, \d+ \w+ \d{4}, \d\d:\d\d\.$")
        self.assertIn('Say exactly: "Hello Ada!"', world.voice("response.create")[0].event["response"]["instructions"])
        [(_, variables)] = world.screened
        self.assertEqual([variables[name] for name in ("caller", "caller_name", "called")], ["100", "Anna", "openai"])
        self.assertEqual(dict(variables["headers"]), {"x_order": "42"})
        world.run(0.5)
        caller.bye()
        what = [event.what for event in self.ended(world, "caller hung up").events]
        self.assertEqual(what[:3], ["invited", "screening.exchange", "screened"])

    def test_refused(self) -> None:
        """The owner does not want the call: 603 with the reason, nothing opened, and a record."""
        world, caller = self.screened(Screening(refusal="Unwanted caller"))
        self.assertEqual((caller.codes[-1], world.opened), (603, 0))
        self.assertIn('text="Unwanted caller"', str(caller.answers[-1].first("reason")))
        self.assertEqual(self.ended(world, "refused: Unwanted caller").caller, "100")

    def test_other_bot(self) -> None:
        """Another bot of the same account takes the call; one of another account does not."""
        eva, ada = bot(), replace(bot(), id="b2", username="ada", name="Ada", instruction="You are Ada.")
        for other, account, who in ((ada, "Ada", "Ada"), (replace(ada, account_id="a2"), "Ada", "Eva")):
            world, caller = self.screened(Screening(bot=account), eva, other)
            self.assertEqual((caller.codes[-1], world.call.bot.name), (200, who))
            world.run(0.5)
            caller.bye()
            self.assertEqual(self.ended(world, "caller hung up").bot_id, "b2" if who == "Ada" else "b1")

    def test_other_bot_cannot(self) -> None:
        """A bot that is off takes no call for another either."""
        eva, ada = bot(), replace(bot(), id="b2", username="ada", name="Ada", enabled=False)
        world, caller = self.screened(Screening(bot="Ada"), eva, ada)
        self.assertEqual((caller.codes[-1], world.opened), (480, 0))
        self.ended(world, "refused: Temporarily Unavailable")

    def test_gives_up(self) -> None:
        """A caller who gives up while the owner is asked: nothing was opened, and there is a record."""
        world, caller = self.screened(None)
        caller.cancel()
        world.run(0.2)
        self.assertEqual((caller.codes[-1], world.opened), (487, 0))
        self.assertTrue(world.screenings["eva"].called)  # the request is given up, too
        self.ended(world, "caller gave up")

    def test_stopped(self) -> None:
        """The service stops meanwhile: the caller is refused at once."""
        world, caller = self.screened(None)
        emptied: list[bool] = []
        world.switch.close("service stopped", lambda: emptied.append(True))
        world.run(0.2)
        self.assertEqual((caller.codes[-1], emptied), (503, [True]))
        self.ended(world, "service stopped")

    def test_fault(self) -> None:
        """A fault of ours in asking is logged, and the call goes on without."""
        world, caller = self.screened(None)
        world.screenings.pop("eva").errback(ZeroDivisionError())
        world.run(0.5)
        self.assertEqual(caller.codes[-1], 200)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        world.run(0.5)
        caller.bye()

    def test_counted(self) -> None:
        """Calls that ring while the owner is asked count as calls."""
        world, caller = self.screened(None)
        second = Caller(world, number=1)
        world.switch._limits = replace(world.switch._limits, calls=1)
        second.invite()
        world.run(0.2)
        self.assertEqual(second.codes[-1], 503)
        caller.cancel()
        world.run(0.2)

"""What is asked for while functions run, other tools in the middle of a call, and tools of the service itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.dialects import calls_mcp
from extenbot.interfaces import Bot, Json, Manner, ToolCall
from tests.ai.liveworld import LiveWorld
from tests.ai.world import END_CALL, LOOK_UP, World, order

ORDER: Json = {"type": "function", "name": "order", "parameters": {"type": "object"}}
SHOP: Json = {
    "type": "mcp",
    "server_label": "shop",
    "server_url": "https://mcp.example.org",
    "require_approval": "never",
}


class Saying(SynchronousTestCase):
    """A sentence that is worth saying only now."""

    def asked(self, world: World) -> list[dict[str, Any]]:
        """What was asked for since the last time."""
        return [event["response"] for event in world.sent() if event["type"] == "response.create"]

    def test_said(self) -> None:
        """It is asked for word by word, with the bot's own instruction, and without tools."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "c1")
        world.voice.say("One moment.")
        self.assertEqual(self.asked(world), [])  # the response that asks for the function is not over
        world.done("r1")
        [wish] = self.asked(world)
        self.assertEqual(wish["instructions"], 'You are Eva.\n\nSay exactly: "One moment." and nothing else.')
        self.assertEqual((wish["tool_choice"], wish["metadata"]["purpose"]), ("none", "meanwhile"))
        world.created("r2", metadata=wish["metadata"])
        world.voice.answered("c1", "Shipped.")
        self.assertEqual(self.asked(world), [])
        world.done("r2")
        self.assertEqual(len(self.asked(world)), 1)  # the result is spoken of

    def test_result_is_worth_more(self) -> None:
        """A result that is there first is spoken of at once; nothing is said in between."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "c1")
        world.voice.say("One moment.")
        world.voice.answered("c1", "Shipped.")
        world.done("r1")
        [wish] = self.asked(world)
        self.assertNotIn("instructions", wish)

    def test_not_needed(self) -> None:
        """Where the model has said something itself, is speaking, or the caller is, it is left out."""
        world = World().talk()
        world.created("r1")
        world.say("r1", "words", 800, "Let me look.")
        world.calls("r1", "c1", place=1)
        world.voice.say("One moment.")
        world.done("r1")
        world.voice.say("One moment.")  # it is still heard
        world.playout.play()
        self.assertEqual(self.asked(world), [])
        world.server("input_audio_buffer.speech_started", audio_start_ms=0, item_id="i1")
        world.voice.say("One moment.")
        self.assertEqual(self.asked(world), [])

    def test_caller_comes_between(self) -> None:
        """Who begins to speak before it could be asked for does not get it afterwards."""
        world = World().talk()
        world.created("r1")
        world.calls("r1", "c1")
        world.voice.say("One moment.")
        world.server("input_audio_buffer.speech_started", audio_start_ms=0, item_id="i1")
        world.done("r1", "cancelled")
        self.assertEqual(self.asked(world), [])

    def test_own_words(self) -> None:
        """Without a sentence the model says in its own words that it takes a while."""
        world = World().talk()
        world.voice.say("")
        [wish] = self.asked(world)
        self.assertIn("takes a while", wish["instructions"])

    def test_live(self) -> None:
        """GPT-Live gets the sentence as a commentary, and says by itself that something takes time."""
        world = LiveWorld().up()
        world.voice.say("One moment.")
        world.voice.say("")
        told = [event["content"] for event in world.sent() if event["type"] == "session.commentary.append"]
        self.assertEqual(told, ["One moment."])


class Offering(SynchronousTestCase):
    """Other tools in the middle of a call."""

    def test_now(self) -> None:
        """The session is told of all tools and of nothing else; sessions that follow have them from the start."""
        world = World().talk()
        world.voice.offer((LOOK_UP, ORDER))
        [update] = world.sent()
        self.assertEqual(update["type"], "session.update")
        self.assertEqual(sorted(update["session"]), ["tools", "type"])
        self.assertEqual([tool["name"] for tool in update["session"]["tools"]], ["look_up", "order"])
        world.drop(False, 1006, "")
        world.clock.advance(1)
        world.configure()
        [settings] = [event["session"] for event in world.sent() if event["type"] == "session.update"]
        self.assertEqual([tool["name"] for tool in settings["tools"]], ["look_up", "order"])

    def test_none(self) -> None:
        """When there are none any more, that is said, too."""
        world = World().talk()
        world.voice.offer(())
        [update] = world.sent()
        self.assertEqual(update["session"], {"type": "realtime", "tools": []})

    def test_while_opening(self) -> None:
        """A session that has been configured and is not confirmed yet is told as soon as it is open."""
        world = World()
        world.configure()
        world.voice.offer((LOOK_UP,))
        self.assertEqual(len(world.sent()), 1)
        world.updated()
        [update] = [event["session"] for event in world.sent() if event["type"] == "session.update"]
        self.assertEqual([tool["name"] for tool in update["tools"]], ["look_up"])

    def test_flat(self) -> None:
        """A server of the flat form gets its own."""
        world = World(order(manner=Manner(dialect="beta")))
        world.links[-1].official = False
        world.configure()
        world.server("session.updated", session={"input_audio_format": "pcm16", "output_audio_format": "pcm16"})
        world.sent()
        world.voice.offer((LOOK_UP,))
        [update] = world.sent()
        self.assertEqual(list(update["session"]), ["tools"])

    def test_live(self) -> None:
        """The model behind GPT-Live gets them."""
        world = LiveWorld().up()
        world.sent()
        world.voice.offer((LOOK_UP, ORDER))
        [update] = [event for event in world.sent() if event["type"] == "session.update"]
        tools = update["session"]["delegation"]["responses"]["tools"]
        self.assertEqual([tool["name"] for tool in tools], ["look_up", "order"])

    def test_live_while_it_opens(self) -> None:
        """Tools that come while a session of GPT-Live opens are told as soon as it is open, and only then."""
        world = LiveWorld()
        world.voice.offer((LOOK_UP, ORDER))
        [start] = world.start()
        self.assertEqual(len(start["session"]["delegation"]["responses"]["tools"]), 2)
        [update] = world.sent()
        tools = update["session"]["delegation"]["responses"]["tools"]
        self.assertEqual([tool["name"] for tool in tools], ["look_up", "order"])
        world = LiveWorld()
        world.start()
        self.assertEqual(world.sent(), [])


class Provided(SynchronousTestCase):
    """Tools of MCP servers that the voice service itself calls."""

    def item(self, world: World, kind: str, **fields: Any) -> None:
        item = {"id": "m1", "type": kind, "server_label": "shop", **fields}
        world.server("response.output_item.done", response_id="r1", output_index=0, item=item)

    def test_told(self) -> None:
        """The service is told of the server as it is."""
        world = World(order())
        world.order = world.order
        world.configure()
        world.updated()
        world.sent()
        world.voice.offer((SHOP, END_CALL))
        [update] = world.sent()
        self.assertEqual(update["session"]["tools"][0], SHOP)

    def test_noted(self) -> None:
        """What it has listed and called stands in the timeline, with what went wrong."""
        world = World().talk()
        world.created("r1")
        self.item(world, "mcp_list_tools", id="l1", tools=[{"name": "order"}])
        self.item(
            world, "mcp_call", name="order", arguments="{}", output="", error={"type": "http_error", "message": "502"}
        )
        self.assertEqual(world.log.of("mcp.listed"), [{"server": "shop", "tools": 1}])
        [called] = world.log.of("mcp.called")
        self.assertEqual((called["name"], called["trouble"]), ("order", "502"))

    def test_outside_responses(self) -> None:
        """Lists come between responses, before the greeting even; what comes both ways counts once."""
        world = World().open()
        for name, label in (("l1", "shop"), ("l2", "bank")):
            item = {"id": name, "type": "mcp_list_tools", "server_label": label, "tools": []}
            world.server("conversation.item.added", item=item)
        world.server("conversation.item.done", item={**item, "id": "l1", "server_label": "shop", "tools": [{}, {}]})
        world.server("mcp_list_tools.completed", item_id="l1")
        world.server("mcp_list_tools.failed", item_id="l2")
        shop, bank = world.log.of("mcp.listed")
        self.assertEqual((shop["server"], shop["tools"]), ("shop", 2))
        self.assertEqual((bank["server"], bank["tools"], bool(bank["trouble"])), ("bank", 0, True))
        item = {"id": "m1", "type": "mcp_approval_request", "server_label": "shop", "name": "order", "arguments": "{}"}
        world.server("conversation.item.done", item=item)
        world.server("response.output_item.done", response_id="r1", output_index=0, item=item)
        self.assertEqual([what for what, _ in world.listener.told].count("approval"), 1)
        world.sent()
        world.voice.greet()
        world.voice.approved("m1", True)
        world.voice.approved("m1", True)
        approvals = [event for event in world.sent() if "mcp_approval_response" in str(event)]
        self.assertEqual(len(approvals), 1)
        item = {"id": "m2", "type": "mcp_call", "server_label": "shop", "name": "order", "output": "Tea."}
        for _ in range(2):
            world.server("conversation.item.done", item=item)
        self.assertEqual(len(world.log.of("mcp.called")), 1)

    def test_spoken_of(self) -> None:
        """A model that does not speak of a result by itself is asked to, once; one that does is not."""
        for speaks, times in ((False, 1), (True, 0)):
            world = World().talk()
            world.created("r1")
            self.item(world, "mcp_call", name="order", arguments="{}", output="Tea.")
            if speaks:
                world.say("r1", "words", 800, "Tea is coming.")
            world.done("r1", output=[{"type": "mcp_call"}])
            world.clock.advance(0.5)
            world.playout.play()
            world.clock.advance(0.5)
            asked = [event for event in world.sent() if event["type"] == "response.create"]
            self.assertEqual(len(asked), times, speaks)

    def test_approval(self) -> None:
        """It waits until it is told whether the caller agrees, once for each request; strangers' ids are ignored."""
        for yes in (True, False):
            world = World().talk()
            world.created("r1")
            for _ in range(2):
                self.item(world, "mcp_approval_request", name="order", arguments='{"what": "tea"}')
            world.done("r1", output=[{"type": "mcp_approval_request"}])
            [(_, tool)] = [told for told in world.listener.told if told[0] == "approval"]
            self.assertEqual(tool, ToolCall("m1", "shop.order", {"what": "tea"}))
            world.sent()
            world.voice.approved("stranger", not yes)
            self.assertEqual(world.sent(), [])
            world.voice.approved("m1", yes)
            world.voice.approved("m1", yes)
            answer, create = world.sent()
            self.assertEqual((answer["item"]["approval_request_id"], answer["item"]["approve"]), ("m1", yes))
            self.assertEqual(create["type"], "response.create")
            self.item(world, "mcp_approval_request", id="m2", name="order", arguments="{}")
            world.voice.approved("m2", yes)
            again = next(event for event in world.sent() if event["type"] == "conversation.item.create")
            self.assertNotEqual(again["item"]["id"], answer["item"]["id"])  # the service wants ids that are new

    def test_approval_too_late(self) -> None:
        """A caller who agrees when the session that has asked is gone: the next one knows, and goes on."""
        for yes, words in ((True, "ask for it again"), (False, "does not agree")):
            world = World().talk()
            world.created("r1")
            self.item(world, "mcp_approval_request", name="order", arguments="{}")
            world.done("r1", output=[{"type": "mcp_approval_request"}])
            world.clock.advance(3300)
            world.configure()
            world.updated()
            world.clock.advance(1)
            self.assertEqual(len(world.log.of("session.moved")), 1)
            world.sent()
            for _ in range(2):
                world.voice.approved("m1", yes)
            note, create = world.sent()
            self.assertIn(words, note["item"]["content"][0]["text"])
            self.assertEqual(create["type"], "response.create")

    def test_nonsense(self) -> None:
        """Items that are not what they should be are counted and harm nothing."""
        world = World().talk()
        world.created("r1")
        self.item(world, "mcp_approval_request", name="order", arguments="{")
        self.item(world, "mcp_approval_request", id=7)
        self.item(world, "mcp_call", name=["x"], error="broken")
        world.done("r1")
        [(_, tool)] = [told for told in world.listener.told if told[0] == "approval"]
        assert isinstance(tool, ToolCall)
        self.assertEqual(tool.arguments, {})

    def test_where(self) -> None:
        """Only OpenAI's own service and Azure do that; of others we do it."""
        plain = Bot("b", "a", "Eva", "registrar", "u", "p", model="gpt-realtime-2.1")
        for url, model, can in (
            ("wss://api.openai.com/v1/realtime", "gpt-realtime-2.1", True),
            ("wss://eu.api.openai.com/v1/realtime", "", True),
            ("wss://x.openai.azure.com/openai/v1/realtime", "mine", True),
            ("wss://voice.example.org/v1/realtime", "gpt-realtime-2.1", False),
            ("wss://api.x.ai/v1/realtime", "grok-voice-latest", False),
            ("wss://api.openai.com/v1/realtime", "gpt-live-1.1", False),
            ("wss://api.openai.com/v1/realtime", "sandbox", False),
        ):
            self.assertEqual(calls_mcp(replace(plain, model=model), url), can, (url, model))

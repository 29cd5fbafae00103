"""From dialling to the confirmed session, and every way in which that fails."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from extenbot.ai.dialects import Dialect, address, headers
from extenbot.ai.pricing import PriceTable
from extenbot.ai.realtime import open_voice
from extenbot.errors import BackendLost
from extenbot.interfaces import LinkListener, VoiceSurroundings
from tests.ai.world import FakeLink, World, check, order
from tests.clock import Clock


class Opening(SynchronousTestCase):
    def test_dials(self) -> None:
        """The server is dialled with the model, the key and a hash of the caller, and nothing of the beta."""
        [(url, sent, timeout)] = World().dialled
        self.assertEqual(url, "wss://voice.example/v1/realtime?model=gpt-realtime-2.1")
        self.assertEqual(set(sent), {"Authorization", "OpenAI-Safety-Identifier"})
        self.assertEqual(sent["Authorization"], "Bearer sk-secret")
        self.assertEqual(timeout, 10.0)

    def test_settings(self) -> None:
        """The one session.update says all that this call needs, in the GA shape."""
        world = World()
        world.connected()
        self.assertEqual(world.sent(), [])
        world.server("session.created", session={})
        detection = {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
            "create_response": True,
            "interrupt_response": True,
        }
        settings = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "transcription": {"model": "gpt-transcribe"},
                    "turn_detection": detection,
                },
                "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
            },
            "instructions": "You are Eva.",
            "tools": list(world.order.tools),
            "tool_choice": "auto",
        }
        self.assertEqual(world.sent(), [{"type": "session.update", "event_id": "c1", "session": settings}])

    def test_opened_when_confirmed(self) -> None:
        """The call may be answered when the server has confirmed the codec, and not before."""
        for law in ("audio/pcmu", "audio/pcma"):
            world = World(order(law))
            world.configure()
            world.voice.heard(bytes(320))
            world.voice.greet()
            self.assertEqual(world.listener.told, [])
            world.clock.advance(0.5)
            world.updated(law, law)
            self.assertEqual(world.listener.told, [("opened", None)])
            self.assertEqual(world.kinds(), ["session.update"])
            self.assertEqual(world.log.of("session.opened"), [{"ms": 500}])
            self.assertEqual(world.timers, [])

    def test_conversation_created_first(self) -> None:
        """Servers that begin with conversation.created are told the settings once all the same."""
        world = World()
        world.connected()
        world.server("conversation.created", conversation={})
        world.server("session.created", session={})
        self.assertEqual(world.kinds(), ["session.update"])

    def test_beta_echo(self) -> None:
        """A server that confirms in the flat shape of the beta is understood."""
        world = World()
        world.configure()
        world.server("session.updated", session={"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"})
        self.assertEqual(world.listener.names, ["opened"])

    def test_server_repeats_itself(self) -> None:
        """A second session.created or session.updated changes nothing."""
        world = World().open()
        world.server("session.created", session={})
        world.updated("audio/pcm", "audio/pcm")
        self.assertEqual(world.listener.names, ["opened"])
        self.assertEqual(world.sent(), [])


class Failing(SynchronousTestCase):
    def ends(self, world: World, cause: str, *, closed: bool = True) -> None:
        self.assertEqual(world.listener.told, [("lost", cause)])
        self.assertEqual(bool(world.link.closed), closed)
        self.assertEqual(world.clock.getDelayedCalls(), [])
        world.drop(True, 1000, "")
        world.received(b'{"type":"session.created"}')
        world.voice.finish()
        world.voice.greet()
        world.voice.heard(bytes(320))
        self.assertEqual(len(world.listener.told), 1)

    def test_wrong_format(self) -> None:
        """Another codec than asked for ends it before anybody hears noise."""
        for formats in (
            ("audio/pcm", "audio/pcm"),
            ("audio/pcmu", "audio/pcma"),
            ("audio/pcma", "audio/pcmu"),
            ("", "audio/pcmu"),
        ):
            world = World()
            world.configure()
            world.updated(*formats)
            self.ends(world, "wrong_format")

    def test_no_echo(self) -> None:
        """A server that does not say which codec is in force is not believed."""
        for said in (b"{}", b"null", b'{"audio":[]}'):
            world = World()
            world.configure()
            world.received(b'{"type":"session.updated","session":' + said + b"}")
            self.ends(world, "wrong_format")

    def test_late(self) -> None:
        """Not ready within the time: given up, at any stage of opening."""
        world = World()
        world.clock.advance(9.875)
        self.assertEqual(world.listener.told, [])
        world.clock.advance(0.125)
        self.ends(world, "late")
        world = World()
        world.clock.advance(9)
        world.configure()
        world.clock.advance(1)
        self.ends(world, "late")

    def test_http(self) -> None:
        """Each refusal of the handshake has its cause, and earns 480 or 503."""
        for status, cause, code in (
            (400, "refused_settings", 480),
            (401, "wrong_key", 480),
            (402, "no_credit", 480),
            (403, "no_model", 480),
            (404, "no_model", 480),
            (418, "lost", 503),
            (429, "busy", 503),
            (500, "busy", 503),
            (503, "busy", 503),
        ):
            world = World()
            words = f'connection was closed uncleanly ("WebSocket connection upgrade failed [{status}]: Because")'
            world.drop(False, 1006, words)
            self.ends(world, cause, closed=world.link.closed > 0)
            self.assertEqual(BackendLost(cause, "").code, code)
            self.assertIn(f"HTTP {status}", str(world.log.of("session.lost")[0]["words"]))

    def test_closed(self) -> None:
        """A close tells its cause by its code, its reason, or the error before it."""
        for code, reason, error, cause in (
            (3000, "invalid_request_error.invalid_api_key", None, "wrong_key"),
            (4000, "invalid_request_error.beta_api_shape_disabled", None, "refused_settings"),
            (4000, "invalid_request_error.model_not_found", None, "no_model"),
            (4000, "", None, "refused_settings"),
            (3000, "", None, "wrong_key"),
            (1008, "", None, "wrong_key"),
            (1008, "", ("session_limit_reached", ""), "busy"),
            (1011, "keepalive ping timeout", None, "busy"),
            (1013, "", None, "busy"),
            (1006, "peer dropped the TCP connection", None, "lost"),
            (None, "Connection was refused by other side: 111", None, "lost"),
            (1000, "", (None, "Missing bearer or basic authentication in header"), "wrong_key"),
            (1000, "", ("odd", "Odd."), "lost"),
            (1001, "Your session hit the maximum duration of 60 minutes.", None, "expired"),
        ):
            world = World()
            world.connected()
            if error:
                world.error(*error)
            world.drop(True, code, reason)
            self.ends(world, cause, closed=world.link.closed > 0)

    def test_fatal_errors(self) -> None:
        """The error events that mean the end are believed without waiting for the close."""
        for code, cause in (
            ("invalid_api_key", "wrong_key"),
            ("account_deactivated", "wrong_key"),
            ("billing_hard_limit_reached", "no_credit"),
            ("insufficient_quota", "no_credit"),
            ("model_not_found", "no_model"),
            ("invalid_model", "no_model"),
            ("beta_api_shape_disabled", "refused_settings"),
            ("session_expired", "expired"),
        ):
            for configured in (False, True):
                world = World()
                world.connected()
                if configured:
                    world.server("session.created", session={})
                world.error(code, "Words.")
                self.ends(world, cause)

    def test_settings_refused(self) -> None:
        """A refused session.update ends it: the session would go on with a wrong codec."""
        for code, event_id in (("unknown_parameter", None), ("invalid_value", "c1"), ("some_new_code", "c1")):
            world = World()
            world.configure()
            world.error(code, "Unknown parameter: 'session.voice'.", event_id)
            self.ends(world, "refused_settings")
            self.assertIn("session.voice", str(world.log.of("session.lost")[0]["words"]))

    def test_other_errors_wait(self) -> None:
        """An error that says nothing about us does not end the opening."""
        world = World()
        world.configure()
        world.error(None, "The server had an error.", "c1", kind=" server_error")
        world.error("rate_limit_exceeded")
        self.assertEqual(world.listener.told, [])
        world.updated()
        self.assertEqual(world.listener.names, ["opened"])

    def test_finished_early(self) -> None:
        """The caller gives up while it opens: closed at once, and `finished` is all that is told."""
        for configured in (False, True):
            world = World()
            if configured:
                world.configure()
            world.voice.finish()
            self.assertEqual(world.listener.told, [("finished", None)])
            self.assertEqual(world.link.closed, 1)
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_lost_while_dialling(self) -> None:
        """A link that fails within `open` tells so only after `open` has returned."""
        world = World()

        def connect(url: str, headers: object, listener: LinkListener, timeout: float) -> FakeLink:
            listener.lost(False, None, "no route")
            return world.link

        around = VoiceSurroundings(
            clock=(clock := Clock()),
            tokens=world.surroundings.tokens,
            connect=connect,
            playout=world.playout,
            listener=world.listener,
            log=world.log,
            url="",
            sandbox_url="",
            open_timeout=1,
            prices=PriceTable(),
            now=clock.seconds,
        )
        open_voice(order(), around, "ws://x/")
        self.assertEqual(world.listener.told, [])
        clock.advance(0)
        self.assertEqual(world.listener.told, [("lost", "lost")])
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_price_that_nobody_knows(self) -> None:
        """An owner reads that no cap can hold for a model without a price; of others there is nothing to say."""
        for model, told in (("gpt-realtime-2.1", []), ("my-own", [{"model": "my-own"}]), ("", [])):
            world = World(order(model=model), prices=PriceTable()).open()
            self.assertEqual(world.log.of("price.unknown"), told)

    def test_bad_address(self) -> None:
        """A bot with an address that is none is refused with a sentence, without dialling."""
        for url in ("", "http://x/", "wss://", "ws://[::1", "ws://x:0/", "ws://x:99999/"):
            world = World(url=url)
            self.assertEqual((world.dialled, world.listener.told), ([], []))
            world.clock.advance(0)
            self.ends(world, "refused_settings", closed=False)

    def test_key_is_not_told(self) -> None:
        """A server that quotes the key back does not bring it into the timeline."""
        world = World()
        world.configure()
        world.error("invalid_value", "Not with sk-secret!")
        self.assertNotIn("sk-secret", repr(world.log.lines))


class Wire(SynchronousTestCase):
    def test_address(self) -> None:
        """The model is added to the query, escaped, unless the address names one."""
        for url, found in (
            ("wss://h/v1/realtime", "wss://h/v1/realtime?model=m%2Fx%20%26"),
            ("wss://h/v1?a=b", "wss://h/v1?a=b&model=m%2Fx%20%26"),
            ("ws://h:8080?model=", "ws://h:8080?model="),
            ("wss://h/?model=other&x=1", "wss://h/?model=other&x=1"),
        ):
            self.assertEqual(address(url, "m/x &"), found)

    def test_headers(self) -> None:
        """No key, no Authorization; a pasted line end cannot break the request; the hash is stable and salted."""
        self.assertEqual(
            headers(order(token=""))["OpenAI-Safety-Identifier"], headers(order())["OpenAI-Safety-Identifier"]
        )
        self.assertNotIn("Authorization", headers(order(token=" \r\n")))
        self.assertEqual(headers(order(token="sk-1\r\nX: y "))["Authorization"], "Bearer sk-1X:y")
        one, other = (headers(order(account_id=each))["OpenAI-Safety-Identifier"] for each in ("a", "b"))
        self.assertNotEqual(one, other)
        self.assertRegex(one, "^[0-9a-f]{64}$")

    def test_variants_of_a_session(self) -> None:
        """No instruction, an own voice, a function with a stray key: every session passes the official types."""
        custom = Dialect().session(order("audio/pcma", voice="voice_123", instruction=""))
        check({"type": "session.update", "session": custom})
        self.assertEqual(custom["audio"]["output"], {"format": {"type": "audio/pcma"}, "voice": {"id": "voice_123"}})
        self.assertNotIn("instructions", custom)
        strict = order()
        tools = ({**strict.tools[0], "strict": True},)
        found = Dialect().session(type(strict)(bot=strict.bot, call_id="c", format="audio/pcmu", tools=tools))
        check({"type": "session.update", "session": found})
        self.assertEqual(found["tools"], [strict.tools[0]])

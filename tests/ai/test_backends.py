"""Which back end serves which bot, and where it dials."""

from __future__ import annotations

import subprocess
import sys

from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from extenbot import plugins
from extenbot.interfaces import IVoiceBackend, Manner
from extenbot.plugins.live import live
from extenbot.plugins.local import local
from extenbot.plugins.realtime import realtime
from tests.ai.world import World, bot, order


class Backends(SynchronousTestCase):
    def test_found(self) -> None:
        """All are found as plugins, the broadest asked last."""
        found = sorted(getPlugins(IVoiceBackend, plugins), key=lambda backend: backend.order)
        self.assertEqual([each for each in found if each in (live, local, realtime)], [live, local, realtime])
        for each in (live, local, realtime):
            verifyObject(IVoiceBackend, each)

    def test_serves(self) -> None:
        """Every bot has exactly one of them; its own address takes a bot away from the local voice."""
        for model, ai_url, dialect, backend in (
            ("sandbox", "", "", local),
            ("sandbox-echo", "", "", local),
            ("sandboxed", "", "", realtime),
            ("", "", "", realtime),
            ("gpt-realtime-2.1", "", "", realtime),
            ("sandbox", "ws://elsewhere/", "", realtime),
            ("gpt-live-1.1", "", "", live),
            ("gpt-live-1.1", "ws://elsewhere/", "", live),
            ("mine", "ws://elsewhere/", "gpt-live", live),
            ("sandbox-live", "", "", live),
            ("sandbox-live-echo", "", "", live),
            ("sandbox-lively", "", "", local),
            ("sandbox-live", "ws://elsewhere/", "", realtime),
        ):
            one = bot(model=model, ai_url=ai_url, manner=Manner(dialect=dialect))
            self.assertEqual([each for each in (live, local, realtime) if each.serves(one)], [backend], (model, ai_url))

    def test_dials(self) -> None:
        """The local voice is dialled with the bot's model, others at the bot's address or the one in the settings."""
        for backend, wanted, url in (
            (local, order(model="sandbox-echo"), "ws://127.0.0.1:1/v1/realtime?model=sandbox-echo"),
            (realtime, order(model=""), "wss://voice.example/v1/realtime?model=gpt-realtime-2.1"),
            (realtime, order(ai_url="ws://own/?x=1", model="m"), "ws://own/?x=1&model=m"),
            (live, order(model="sandbox-live-echo"), "ws://127.0.0.1:1/v1/live/sessions"),
            (live, order(model="gpt-live-1.1"), "wss://voice.example/v1/live/sessions"),
            (live, order(ai_url="ws://own/v1/realtime?model=a&x=1", model="gpt-live"), "ws://own/v1/live/sessions?x=1"),
            (
                live,
                order(ai_url="wss://mine.openai.azure.com/openai/v1/realtime", model="gpt-live"),
                "wss://mine.openai.azure.com/openai/v1/live/sessions",
            ),
        ):
            world = World()
            backend.open(wanted, world.surroundings)
            self.assertEqual(world.dialled[1][0], url)

    def test_imports_little(self) -> None:
        """Looking at the plugins does not import the voice itself, so that `twistd --help` stays quick."""
        program = "import sys; from extenbot.plugins import live, local, realtime; "
        program += "print(any(name in sys.modules for name in ('extenbot.ai.talk', 'extenbot.ai.live')))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "False")

"""Which back end serves which bot, and where it dials."""

from __future__ import annotations

import subprocess
import sys

from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from extenbot import plugins
from extenbot.interfaces import IVoiceBackend
from extenbot.plugins.local import local
from extenbot.plugins.realtime import realtime
from tests.ai.world import World, bot, order


class Backends(SynchronousTestCase):
    def test_found(self) -> None:
        """Both are found as plugins, the local voice asked first."""
        found = sorted(getPlugins(IVoiceBackend, plugins), key=lambda backend: backend.order)
        self.assertEqual([each for each in found if each in (local, realtime)], [local, realtime])
        for each in (local, realtime):
            verifyObject(IVoiceBackend, each)

    def test_serves(self) -> None:
        """Every bot has exactly one of the two; its own address takes a bot away from the local voice."""
        for model, ai_url, here in (
            ("sandbox", "", True),
            ("sandbox-echo", "", True),
            ("sandboxed", "", False),
            ("", "", False),
            ("gpt-realtime-2.1", "", False),
            ("sandbox", "ws://elsewhere/", False),
        ):
            one = bot(model=model, ai_url=ai_url)
            self.assertEqual((local.serves(one), realtime.serves(one)), (here, not here))

    def test_dials(self) -> None:
        """The local voice is dialled with the bot's model, others at the bot's address or the one in the settings."""
        for backend, wanted, url in (
            (local, order(model="sandbox-echo"), "ws://127.0.0.1:1/v1/realtime?model=sandbox-echo"),
            (realtime, order(model=""), "wss://voice.example/v1/realtime?model=gpt-realtime-2.1"),
            (realtime, order(ai_url="ws://own/?x=1", model="m"), "ws://own/?x=1&model=m"),
        ):
            world = World()
            backend.open(wanted, world.surroundings)
            self.assertEqual(world.dialled[1][0], url)

    def test_imports_little(self) -> None:
        """Looking at the plugins does not import the voice itself, so that `twistd --help` stays quick."""
        program = "import sys; from extenbot.plugins import local, realtime; print('extenbot.ai.talk' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "False")

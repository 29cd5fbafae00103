"""The voice that needs no key: the sandbox on loopback."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from extenbot.interfaces import Bot, IVoiceBackend, Voice, VoiceOrder, VoiceSurroundings
from extenbot.plugins import live


@implementer(IPlugin, IVoiceBackend)
class Local:
    """Bots whose model is `sandbox` or begins with `sandbox-`, unless they name a server of their own."""

    name = "Local voice"
    order = 10

    def serves(self, bot: Bot) -> bool:
        return (
            not live.live.serves(bot)
            and not bot.ai_url
            and (bot.model == "sandbox" or bot.model.startswith("sandbox-"))
        )

    def open(self, order: VoiceOrder, surroundings: VoiceSurroundings) -> Voice:
        from extenbot.ai.realtime import open_voice

        return open_voice(order, surroundings, url=surroundings.sandbox_url, model=order.bot.model)


local = Local()

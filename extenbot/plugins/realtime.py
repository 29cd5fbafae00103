"""OpenAI's Realtime service, and any server that speaks its protocol."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from extenbot.interfaces import Bot, IVoiceBackend, Voice, VoiceOrder, VoiceSurroundings
from extenbot.plugins import live, local


@implementer(IPlugin, IVoiceBackend)
class Realtime:
    """Every bot that is neither on the local voice nor on GPT-Live."""

    name = "OpenAI Realtime"
    order = 100

    def serves(self, bot: Bot) -> bool:
        return not (live.live.serves(bot) or local.local.serves(bot))

    def open(self, order: VoiceOrder, surroundings: VoiceSurroundings) -> Voice:
        from extenbot.ai.realtime import open_voice

        return open_voice(order, surroundings, url=order.bot.ai_url or surroundings.url, model=order.bot.model)


realtime = Realtime()

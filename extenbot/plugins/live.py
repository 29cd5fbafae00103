"""OpenAI's GPT-Live: a model that listens while it speaks."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from extenbot.interfaces import Bot, IVoiceBackend, Voice, VoiceOrder, VoiceSurroundings

LOCAL = "sandbox-live"


@implementer(IPlugin, IVoiceBackend)
class Live:
    """Bots whose model begins with `gpt-live`, or that name the dialect; `sandbox-live…` is the local voice's."""

    name = "GPT-Live"
    order = 5

    def serves(self, bot: Bot) -> bool:
        return bot.model.startswith("gpt-live") or bot.manner.dialect == "gpt-live" or self._local(bot)

    def _local(self, bot: Bot) -> bool:
        return not bot.ai_url and (bot.model == LOCAL or bot.model.startswith(f"{LOCAL}-"))

    def open(self, order: VoiceOrder, surroundings: VoiceSurroundings) -> Voice:
        from extenbot.ai.live import open_live

        url = surroundings.sandbox_url if self._local(order.bot) else order.bot.ai_url or surroundings.url
        return open_live(order, surroundings, url)


live = Live()

"""Functions that are webhooks: a POST, its reply told to the model."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from extenbot.errors import ToolFailed
from extenbot.interfaces import Function, ITool, Json, ToolContext


@implementer(IPlugin, ITool)
class Webhook:
    """Any function with an http or https URL."""

    name = "Webhook"

    def serves(self, function: Function) -> bool:
        return function.url.lower().startswith(("http://", "https://"))

    async def run(self, function: Function, arguments: Json, context: ToolContext) -> str:
        from extenbot.ai import tools
        from extenbot.net.webhook import post

        status, content_type, reply = await post(function.url, function.token, tools.body(function, arguments, context))
        if not 200 <= status < 300:
            raise ToolFailed(f"the webhook answered with status {status}")
        return tools.spoken(reply, content_type)


webhook = Webhook()

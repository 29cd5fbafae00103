"""Functions that are webhooks: a request, and what its reply says told to the model."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from extenbot.errors import ToolFailed
from extenbot.interfaces import Function, ITool, Json, Outside, ToolContext
from extenbot.tasks import aside

WITHOUT_BODY = frozenset({"GET", "DELETE"})
"""Methods whose arguments go into the query, unless there is a template."""


@implementer(IPlugin, ITool)
class Webhook:
    """Any function with an http or https URL that is nothing else."""

    name = "Webhook"

    def serves(self, function: Function) -> bool:
        return function.kind == "webhook" and function.url.lower().startswith(("http://", "https://"))

    async def run(self, function: Function, arguments: Json, context: ToolContext, outside: Outside) -> str:
        from extenbot.ai import results, tools

        url, left = tools.addressed(function, arguments, context)
        if function.method in WITHOUT_BODY and not function.template.strip():
            url, body = tools.with_query(url, left), b""
        else:
            body = tools.written(tools.body(function, arguments, context))
        reply = await outside.fetch(
            context.bot_id,
            function.method,
            url,
            headers=function.headers,
            token=function.token,
            secret=function.secret,
            key=context.key,
            body=body,
            timeout=function.timeout,
            late=context.late,
            retries=function.retries,
            noted=context.noted,
        )
        if not 200 <= reply.status < 300:
            raise ToolFailed(tools.refusal("the webhook", reply))
        return await aside(len(reply.body), results.told, reply, function.result)


webhook = Webhook()

"""Functions that are apps of dify: workflows, and chat apps and agents."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from extenbot.interfaces import Function, ITool, Json, Outside, ToolContext
from extenbot.tasks import aside

KINDS = ("dify_workflow", "dify_chat")


@implementer(IPlugin, ITool)
class Dify:
    """By the service API of an app (docs.dify.ai): its base URL and its key."""

    name = "dify"

    def serves(self, function: Function) -> bool:
        return function.kind in KINDS

    async def run(self, function: Function, arguments: Json, context: ToolContext, outside: Outside) -> str:
        from extenbot.ai import dify, tools

        chat = function.kind == "dify_chat"
        body = dify.chat(function, arguments, context) if chat else dify.workflow(function, arguments, context)
        reply = await outside.fetch(
            context.bot_id,
            "POST",
            dify.address(function),
            headers=function.headers,
            token=function.token,
            secret=function.secret,
            key=context.key,
            body=tools.written(body),
            timeout=function.timeout,
            late=context.late,
            noted=context.noted,
        )
        if not chat:
            return await aside(len(reply.body), dify.outputs, reply, function.result)
        if reply.status == 404:  # the conversation is gone, if it was not the app: the next question begins a new one
            context.kept.pop(function.id, None)
        answer = await aside(len(reply.body), dify.answer, reply)
        if answer.conversation:
            context.kept[function.id] = answer.conversation
        return answer.words


dify = Dify()

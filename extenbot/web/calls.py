"""Calls: those that are up, those that have ended, and one of them in full with its recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from extenbot.ai import mcp
from extenbot.ai.tools import name_of
from extenbot.interfaces import Bot, CallRecord
from extenbot.web.audio import send_file
from extenbot.web.pages import Pages, app, go, own_page
from extenbot.web.seams import Account
from extenbot.web.timeline import KINDS, entries, latency, turns
from extenbot.web.visits import Turned, Visit

CALLS_A_PAGE = 50


@app.route("/calls", methods=["GET"])
@own_page
async def all_calls(pages: Pages, visit: Visit, account: Account) -> bytes:
    arguments: Mapping[bytes, Sequence[bytes]] = visit.request.args or {}
    try:
        before = float(arguments[b"before"][0]) if b"before" in arguments else None
    except ValueError:
        before = None
    found = await pages.store.run(pages.store.calls.recent, account.id, None, CALLS_A_PAGE + 1, before)
    older = found[CALLS_A_PAGE - 1].started if len(found) > CALLS_A_PAGE else None
    return pages.show(
        visit,
        "calls.html",
        section="calls",
        calls=found[:CALLS_A_PAGE],
        bots=await _names(pages, account),
        older=older,
        up=pages.live.calls(account.id),
    )


@app.route("/calls/live", methods=["GET"])
@own_page
async def live_calls(pages: Pages, visit: Visit, account: Account) -> bytes:
    """The part of the list that shows what is up now, alone."""
    up = pages.live.calls(account.id)
    bots = await _names(pages, account) if up else {}
    return pages.show(visit, "live.html", bots=bots, up=up)


@app.route("/calls/<call_id>", methods=["GET"])
@own_page
async def one_call(pages: Pages, visit: Visit, account: Account, call_id: str) -> bytes:
    record = await pages.own_call(call_id, account)
    bot = await pages.store.run(pages.store.bots.get, record.bot_id, account.id)
    answers = turns(record.events)
    return pages.show(
        visit,
        "call.html",
        section="calls",
        call=record,
        bot=bot,
        recording=await _recording(pages, record) is not None,
        turns=answers,
        latency=latency(answers),
        entries=entries(record.events),
        kinds=KINDS,
        replays=_replays(record, bot),
    )


@app.route("/calls/<call_id>/hang-up", methods=["POST"])
@own_page
async def hang_up(pages: Pages, visit: Visit, account: Account, call_id: str) -> bytes:
    if not pages.live.hang_up(account.id, call_id):
        raise Turned(404, "This call is not up, or not any more.")
    return go(visit.request, "/calls")


@app.route("/calls/<call_id>/recording.wav", methods=["GET"])
@own_page
async def play_recording(pages: Pages, visit: Visit, account: Account, call_id: str) -> bytes:
    record = await pages.own_call(call_id, account)
    path = await _recording(pages, record)
    if path is None:
        raise Turned(404, "There is no recording of this call.")
    if b"download" in (visit.request.args or {}):
        visit.request.setHeader("Content-Disposition", f'attachment; filename="call-{record.id}.wav"')
    return await send_file(visit.request, pages.store.run, path)


@app.route("/calls/<call_id>/recording/delete", methods=["GET"])
@own_page
async def recording_to_delete(pages: Pages, visit: Visit, account: Account, call_id: str) -> bytes:
    record = await pages.own_call(call_id, account)
    if await _recording(pages, record) is None:
        raise Turned(404, "There is no recording of this call.")
    return pages.show(visit, "delete_recording.html", section="calls", call=record)


@app.route("/calls/<call_id>/recording/delete", methods=["POST"])
@own_page
async def delete_recording(pages: Pages, visit: Visit, account: Account, call_id: str) -> bytes:
    record = await pages.own_call(call_id, account)
    await pages.store.run(pages.live.erase, record.id)
    return go(visit.request, f"/calls/{record.id}")


def _replays(record: CallRecord, bot: Bot | None) -> dict[int, str]:
    """Where each use of a function or tool can be tried again, by its place among the events; of what is there."""
    functions = {name_of(function): function.id for function in bot.functions} if bot else {}
    found = {}
    for place, event in enumerate(record.events):
        function_id = functions.get(str(event.fields.get("name"))) if event.what == "tool.asked" else None
        if function_id:
            asked = urlencode({"call": record.id, "use": event.fields.get("call", "")})
            found[place] = f"/settings/functions/{function_id}/run?{asked}"
        elif bot and (used := mcp.used(event, bot.servers)):
            found[place] = f"/settings/servers/{used[0].id}/run?{urlencode({'call': record.id, 'place': place})}"
    return found


async def _names(pages: Pages, account: Account) -> dict[str, str]:
    return {bot.id: bot.name for bot in await pages.store.run(pages.store.bots.all, account.id)}


async def _recording(pages: Pages, record: CallRecord) -> Path | None:
    return await pages.store.run(pages.live.recording, record.id) if record.recorded else None

"""What a bot says word by word: to hear, to upload, to have made by its own voice, and to remove."""

from __future__ import annotations

from extenbot.errors import ExtenbotError, Invalid
from extenbot.interfaces import Bot
from extenbot.web import wav
from extenbot.web.audio import part_asked
from extenbot.web.bots import shown_bot
from extenbot.web.exact import Exact, exact
from extenbot.web.pages import Pages, app, go, own_page, own_upload
from extenbot.web.seams import Account
from extenbot.web.visits import Turned, Visit


@app.route("/settings/bots/<bot_id>/sentences/<which>.wav", methods=["GET"])
@own_page
async def play_sentence(pages: Pages, visit: Visit, account: Account, bot_id: str, which: str) -> bytes:
    _, sentence = await _meant(pages, account, bot_id, which)
    if sentence.kept is None:
        raise Turned(404, "There is no audio of this sentence.")
    audio = wav.written(sentence.kept.audio[wav.LAW])
    part = part_asked(visit.request, len(audio))
    return audio[part.start : part.stop]


@app.route("/settings/bots/<bot_id>/sentences/<which>/upload", methods=["POST"])
@own_upload
async def upload_sentence(pages: Pages, visit: Visit, account: Account, bot_id: str, which: str) -> bytes:
    bot, sentence = await _meant(pages, account, bot_id, which)
    try:
        audio = await pages.store.run(wav.read, visit.file)
        await pages.store.change(pages.store.sentences.save, bot.id, sentence.text, audio, "recorded", "")
    except Invalid as error:
        return await shown_bot(pages, visit, account, bot, {which: " ".join(error.problems.values())})
    return _back(visit, bot)


@app.route("/settings/bots/<bot_id>/sentences/<which>/make", methods=["POST"])
@own_page
async def make_sentence(pages: Pages, visit: Visit, account: Account, bot_id: str, which: str) -> bytes:
    """Takes as long as the voice needs to say it, and costs what that costs: one at a time."""
    bot, sentence = await _meant(pages, account, bot_id, which)
    if bot.id in pages.speaking:
        return await shown_bot(pages, visit, account, bot, {which: "The bot is speaking already: wait a moment."})
    pages.speaking.add(bot.id)
    try:
        await pages.live.speak(bot, sentence.text)
    except Invalid as error:
        return await shown_bot(pages, visit, account, bot, {which: " ".join(error.problems.values())})
    except ExtenbotError as error:
        return await shown_bot(pages, visit, account, bot, {which: str(error)})
    finally:
        pages.speaking.discard(bot.id)
    return _back(visit, bot)


@app.route("/settings/bots/<bot_id>/sentences/<which>/remove", methods=["POST"])
@own_page
async def remove_sentence(pages: Pages, visit: Visit, account: Account, bot_id: str, which: str) -> bytes:
    bot, sentence = await _meant(pages, account, bot_id, which)
    await pages.store.change(pages.store.sentences.remove, bot.id, sentence.text)
    return _back(visit, bot)


async def _meant(pages: Pages, account: Account, bot_id: str, which: str) -> tuple[Bot, Exact]:
    bot = await pages.own_bot(bot_id, account)
    sentence = exact(bot, pages.store.sentences.of(bot.id)).get(which)
    if sentence is None:
        raise Turned(404, "The bot has no such sentence to say.")
    return bot, sentence


def _back(visit: Visit, bot: Bot) -> bytes:
    return go(visit.request, f"/settings/bots/{bot.id}#sentences")

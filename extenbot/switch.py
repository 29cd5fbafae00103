"""Who gets a request: its dialog, the registrar, or a bot; and whether it is let in.

Everything that reaches us is for us, whatever host name the PBX wrote: we are no proxy.
In registrar mode every INVITE is challenged, whatever its From, Contact or source, and
the digest username names the bot (product.md 2); only from an address that a bot's owner
said to trust (a static trunk) it is not. A bot of registrant mode is reached at the
Contact that it registered, from its own PBX only. Whoever fails gets the answer from here;
whoever is let in gets a `Call`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from twisted.logger import Logger

from extenbot.call import NOBODY_ASKED, Call
from extenbot.errors import Refused, Remote
from extenbot.failure import quotable
from extenbot.interfaces import Address, Bot, Directory, Flow, LiveCall, Screening, SipTransport
from extenbot.screening import Ringing
from extenbot.settings import Limits
from extenbot.sip.answering import Answering
from extenbot.sip.authorize import Authorizer
from extenbot.sip.bodies import check_accept
from extenbot.sip.calling import PATIENCE, Calling, CallingListener
from extenbot.sip.digest import Challenge, Challenger
from extenbot.sip.guard import Guard
from extenbot.sip.headers import ALLOW, CAPABILITIES, EVENTS, METHODS, UNSERVED
from extenbot.sip.message import Request
from extenbot.sip.registrant import Registrant
from extenbot.sip.registrants import Registrants
from extenbot.sip.registrar import Binding, Registrar
from extenbot.sip.session import Means, Session
from extenbot.sip.transaction import ServerTransaction
from extenbot.sip.uri import Uri, callee
from extenbot.sip.way import Way
from extenbot.surroundings import Surroundings

#: request users that mean "the bot that you authenticated as": a word, and digits for PBXs that dial nothing else
ANY_BOT = frozenset({"openai", "70000000000"})


class Switch:
    """The user of the transaction layer. It holds the calls that are up."""

    log = Logger()

    def __init__(
        self,
        around: Surroundings,
        transport: SipTransport,
        means: Means,
        challenger: Challenger,
        registrar: Registrar,
        directory: Directory,
        limits: Limits,
        registrants: Registrants,
        guard: Guard,
    ) -> None:
        self._around = around
        self._transport = transport
        self._means = means
        self._challenger = challenger
        self._registrar = registrar
        self._directory = directory
        self._limits = limits
        self._registrants = registrants
        self._guard = guard
        guard.known = self.knows
        self._calls: dict[str, Call] = {}
        self._of_bot: Counter[str] = Counter()
        self._ringing: dict[str, Ringing] = {}  # calls that have not begun, by their ids
        self._open = True
        self._emptied: Callable[[], None] | None = None

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls that are up, in the order they came."""
        return tuple(self._calls.values())

    def live(self, account_id: str) -> tuple[LiveCall, ...]:
        """The calls of an account that are up, as its pages show them."""
        return tuple(call.live for call in self.calls if call.bot.account_id == account_id)

    def knows(self, host: str) -> bool:
        """Whether a call's other end, a bot's PBX or a trusted trunk is at this address."""
        return self._means.sessions.reach(host) or self._registrants.trust(host) or bool(self._directory.trusting(host))

    # -- What the transaction layer tells us --

    def requested(self, request: Request, transaction: ServerTransaction) -> None:
        """A new request; what we refuse we refuse by raising `Refused`, the layer answers."""
        session = self._means.sessions.find(request)
        if session is not None:
            transaction.vouched = True
            session.requested(request, transaction)
        elif request.to.tag:
            raise Refused(481, "Call/Transaction Does Not Exist")
        elif request.uri.scheme not in ("sip", "sips"):
            raise Refused(416, "Unsupported URI Scheme")
        elif registrant := self._registrants.of(request, transaction.flow.remote[0]):
            self._came_from_pbx(request, transaction, registrant)
        elif request.method == "INVITE":
            self._invited(request, transaction)
        elif request.method == "REGISTER":
            self._registered(request, transaction)
        elif request.method == "OPTIONS":
            transaction.answer(200, headers=CAPABILITIES)
        else:
            self._unasked(request, transaction, self._guard.knows(transaction.flow.remote[0]))

    def _unasked(self, request: Request, transaction: ServerTransaction, known: bool) -> None:
        """Outside of a call, and no beginning of one. `known`: it is from a PBX of a bot."""
        if request.method == "SUBSCRIBE":
            raise Refused(489, "Bad Event", [EVENTS])
        if request.method == "NOTIFY" and known:
            if not _is_message_summary(request):
                raise Refused(489, "Bad Event", [EVENTS])
            transaction.answer(200)
        elif request.method in UNSERVED:
            raise Refused(405, "Method Not Allowed", [ALLOW])
        elif request.method in METHODS or request.method == "REFER":
            raise Refused(481, "Call/Transaction Does Not Exist")
        else:
            raise Refused(501, "Not Implemented", [ALLOW])

    def acknowledged(self, request: Request, flow: Flow) -> None:  # noqa: ARG002
        """The ACK of a 2xx."""
        session = self._means.sessions.find(request)
        if session is not None:
            session.acknowledged(request)

    # -- Letting in --

    def _authenticated(self, request: Request, transaction: ServerTransaction) -> Bot:
        """The bot that the digest names, enabled and of registrar mode; `Refused` 401, 403 or 480 otherwise."""

        def password_of(username: str) -> str | None:
            bot = self._directory.by_username(username)
            return bot.password if bot is not None and bot.kind == "registrar" else None

        flow = transaction.flow
        try:
            username = self._challenger.check(request, flow.remote[0], password_of)
        except Challenge:
            raise
        except Refused:
            self._guard.failed(flow)
            raise
        transaction.vouched = True
        self._guard.vouch(flow.remote[0])
        bot = self._directory.by_username(username)
        if bot is None:  # removed this very moment
            raise Refused(404, "Not Found")
        _check_enabled(bot)
        return bot

    def _trusted(self, request: Request, host: str) -> Bot | None:
        """The bot that lets this caller in without a digest; None when there must be one.

        The request user or the To user names the bot. Who names none means the only bot that trusts the address,
        unless the call may be that of another trunk from there, one with a digest: then it is asked.
        """
        found = self._directory.trusting(host)
        if not found or self._challenger.has_credentials(request):
            return None
        bot = found.get(request.uri.user) or found.get(request.to.uri.user)
        if bot is None and request.uri.user in ANY_BOT and (bot := self._directory.meant_by(host)):
            others = self._registrar.registered_from(host) | {request.to.uri.user, request.from_.uri.user}
            if any(self._directory.by_username(user) for user in others - {bot.username}):
                return None
        return bot

    def _registered(self, request: Request, transaction: ServerTransaction) -> None:
        """A REGISTER; who is registered is not limited or banned."""
        bot, flow = self._authenticated(request, transaction), transaction.flow
        response = self._registrar.register(request, bot.username, flow)
        self.vouch(self._registrar.bindings(bot.username))
        transaction.respond(response)

    def vouch(self, bindings: Iterable[Binding]) -> None:
        now = self._around.now()
        for binding in bindings:
            self._guard.vouch(binding.flow.remote[0], binding.expires_at - now)

    def _came_from_pbx(self, request: Request, transaction: ServerTransaction, registrant: Registrant) -> None:
        """To a Contact that a bot has registered, from the PBX that it is registered at: no digest is needed."""
        transaction.vouched = True
        if request.method == "INVITE":
            bot = self._directory.by_id(registrant.login.bot_id)
            if bot is None:  # removed this very moment
                raise Refused(404, "Not Found")
            _check_enabled(bot)
            self._call(request, transaction, bot, registrant.contact, str(registrant.aor))
        elif request.method == "OPTIONS":
            transaction.answer(200, headers=CAPABILITIES)
        else:
            self._unasked(request, transaction, True)

    def _invited(self, request: Request, transaction: ServerTransaction) -> None:
        flow = transaction.flow
        if bot := self._trusted(request, flow.remote[0]):
            transaction.vouched = True
            _check_enabled(bot)
        else:
            bot = self._authenticated(request, transaction)
            if request.uri.user not in ANY_BOT and request.uri.user != bot.username:
                raise Refused(404, "Not Found")
        contact = Uri.of(bot.username, *self._transport.advertised(flow), transport=flow.transport)
        if request.uri.scheme == "sips":  # RFC 3261 12.1.1
            contact.scheme, contact.params = "sips", {}
        self._call(request, transaction, bot, str(contact))

    def _call(
        self, request: Request, transaction: ServerTransaction, bot: Bot, contact: str, registration: str = ""
    ) -> None:
        """Begin a call; `registration` is the address at the PBX that it came to, for a registrant."""
        check_accept(request)
        if replaced := self._means.sessions.replaced(request):
            self._take_over(replaced, transaction, bot, contact)
            return
        self._admit(bot)
        session = self._answering(transaction, bot, contact)
        peer = _written(transaction.flow.remote)
        call = Call(bot, self._around, partial(self._dial, bot), self._over)
        with _refusing(session):
            call.meet(request, session, peer, registration)
            asked = call.screen()
            if asked is None:
                self._take(call)
            else:
                self._count(call)
                ringing = Ringing(session, partial(self._screened, call, session), partial(self._given_up, call))
                self._ringing[call.id] = ringing
                ringing.wait(asked)

    def _screened(self, call: Call, session: Answering, found: Screening) -> None:
        """The owner of a call's bot has been asked about it."""
        self._no_longer_rings(call)
        with _refusing(session):
            try:
                if found.refusal:
                    why = quotable(found.refusal)
                    raise Refused(603, why, [("Reason", f'SIP;cause=603;text="{why}"')])
                if found.bot:
                    call.bot = self._chosen(call.bot, found.bot)
                self._take(call, found)
            except (Remote, Refused) as error:
                call.turned_away(f"refused: {error}")
                raise

    def _given_up(self, call: Call, reason: str) -> None:
        """The caller has not waited for that."""
        self._no_longer_rings(call)
        call.turned_away(reason)

    def _no_longer_rings(self, call: Call) -> None:
        self._ringing.pop(call.id, None)
        self._count_no_more(call)

    def _chosen(self, bot: Bot, wish: str) -> Bot:
        """Another bot of the same account, by id, username or name; one that there is not leaves things as they are."""
        found = self._directory.of_account(bot.account_id, wish)
        if found is None or found.id == bot.id:
            return bot
        _check_enabled(found)
        self._admit(found)
        return found

    def _take(self, call: Call, found: Screening = NOBODY_ASKED) -> None:
        call.take(found)
        self._up(call)
        self.log.info(
            "Call {id} from {caller} at {peer} to bot {bot}",
            id=call.id,
            caller=call.caller,
            peer=call.peer,
            bot=call.bot.username,
        )

    def _answering(self, transaction: ServerTransaction, bot: Bot, contact: str) -> Answering:
        session = Answering(self._means, transaction, contact)
        session.authorizer = Authorizer(bot.auth_id or bot.username, bot.password, self._around.tokens)
        return session

    def _up(self, call: Call) -> None:
        self._calls[call.id] = call
        self._count(call)

    def _count(self, call: Call) -> None:
        self._of_bot[call.bot.id] += 1

    def _count_no_more(self, call: Call) -> None:
        self._of_bot[call.bot.id] -= 1
        if not self._of_bot[call.bot.id]:
            del self._of_bot[call.bot.id]

    def _take_over(self, replaced: Session, transaction: ServerTransaction, bot: Bot, contact: str) -> None:
        """The PBX joins the bot with somebody else: its call goes on in another dialog (RFC 3891)."""
        call = next((call for call in self.calls if call is replaced.listener), None)
        if call is None or call.bot.id != bot.id:  # another's call is none to you
            raise Refused(481, "There is no such call to replace")
        session = self._answering(transaction, bot, contact)
        try:
            call.move(session)
        except (Remote, Refused) as error:
            session.refuse(error.code, "", getattr(error, "headers", ()))
        except BaseException:
            session.refuse(500)
            raise

    def _admit(self, bot: Bot) -> None:
        if not self._open:
            raise Refused(503, "Going Down", [("Retry-After", "30")])
        if len(self._calls) + len(self._ringing) >= self._limits.calls:
            raise Refused(503, "Too Many Calls", [("Retry-After", "10")])
        if self._of_bot[bot.id] >= self._limits.calls_per_bot:
            raise Refused(486, "Busy Here", [("Retry-After", "10")])
        if why := self._around.ledger.refusal(bot):
            self.log.info("A call of bot {bot} is refused: {why}", bot=bot.username, why=why)
            raise Refused(480, quotable(why), [("Reason", f'SIP;cause=480;text="{quotable(why)}"')])

    def _over(self, call: Call) -> None:
        del self._calls[call.id]
        self._count_no_more(call)
        if self._emptied is not None and not self._calls:
            self._emptied()

    # -- Calling out --

    def place(self, bot: Bot, target: str, told: Callable[[str], None]) -> Call:
        """Let a bot call somebody at its PBX: a number, or a SIP or tel URI. `told` gets the news (`Call.told`).

        `Malformed` for no such thing, `Refused` when the bot has no PBX now or may not have one more call.
        """
        _check_enabled(bot)
        self._admit(bot)
        way = self._way(bot)
        uri = callee(target, way.domain)
        call = Call(bot, self._around, partial(self._dial, bot), self._over)
        call.place(uri, _written(way.flow.remote), told)
        self._up(call)
        self.log.info("Call {id} of bot {bot} to {target}", id=call.id, bot=bot.username, target=str(uri))
        return call

    def _dial(
        self, bot: Bot, target: str, sdp: bytes, listener: CallingListener, patience: float = PATIENCE
    ) -> Calling:
        return Calling(self._means, self._way(bot), target, sdp, listener, patience=patience)

    def _way(self, bot: Bot) -> Way:
        """To the PBX of a bot, by the registration that it has there or that the PBX has here."""
        if bot.kind == "registrant":
            way = self._registrants.way(bot.id)
            if way is None:
                raise Refused(480, "The bot is not registered at its PBX")
            return way
        binding = self._registrar.best(bot.username)
        if binding is None:
            raise Refused(480, "No PBX is registered with the bot's username")
        contact, flow = Uri.read(binding.contact), binding.flow
        return Way(
            flow=flow,
            routes=binding.path,
            local=str(Uri.of(bot.username, self._challenger.realm)),
            contact=str(Uri.of(bot.username, *self._transport.advertised(flow), transport=flow.transport)),
            domain=str(contact).partition("@")[2] or str(contact).partition(":")[2],
            username=bot.username,
            password=bot.password,
        )

    # -- Changes and the end --

    def changed(self, usernames: Iterable[str]) -> None:
        """Bots were edited or removed: a bot that may no longer register loses its bindings."""
        for username in usernames:
            bot = self._directory.by_username(username)
            if bot is None or not bot.enabled or bot.kind != "registrar":
                self._registrar.forget(username)

    def close(self, reason: str, emptied: Callable[[], None]) -> None:
        """Let nobody in any more and end every call; `emptied` is called when the last record is written."""
        self._open = False
        for ringing in tuple(self._ringing.values()):
            ringing.refuse(reason)
        for call in self.calls:
            call.hang_up(reason)
        if self._calls:
            self._emptied = emptied
        else:
            emptied()


@contextmanager
def _refusing(session: Answering) -> Iterator[None]:
    """What is raised is the answer to the INVITE; a fault of ours is 500, and goes on."""
    try:
        yield
    except (Remote, Refused) as error:
        session.refuse(error.code, "", getattr(error, "headers", ()))
    except BaseException:
        session.refuse(500)
        raise


def _written(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_enabled(bot: Bot) -> None:
    if not bot.enabled:
        raise Refused(480, "Temporarily Unavailable", [("Reason", 'SIP;cause=480;text="the bot is disabled"')])


def _is_message_summary(request: Request) -> bool:
    """The count of voice messages that a PBX tells each phone, asked or not (RFC 3842)."""
    event = (request.first("event") or "").split(";")[0].strip().lower()
    return request.method == "NOTIFY" and event == "message-summary"

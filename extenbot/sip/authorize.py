"""Credentials for requests of ours that somebody challenges (RFC 3261 22.2, 22.3; RFC 7616, RFC 8760).

An `Authorizer` belongs to one login. It keeps the challenges it was given, one for each realm, so that the next
request has its credentials at once, with a count that grows. `ask` sends a request and, challenged, sends it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from extenbot.errors import Malformed
from extenbot.interfaces import Flow, Tokens
from extenbot.sip.digest import answer_challenge, is_stale, scope, strongest
from extenbot.sip.message import Request, Response, renumbered
from extenbot.sip.transaction import Transactions

CHALLENGED = {401: ("www-authenticate", "authorization"), 407: ("proxy-authenticate", "proxy-authorization")}
"""The codes that ask for credentials; where the challenge stands and where the answer goes."""
MOST_TRIES = 5  # of one request: a challenge by each proxy on the way, and a stale nonce or two
MOST_REALMS = 8


@dataclass
class _Challenge:
    text: str
    nonce: str
    uses: int = 0


class Authorizer:
    """The credentials of one login, for whoever asks for them."""

    def __init__(self, username: str, password: str, tokens: Tokens) -> None:
        self._username = username
        self._password = password
        self._tokens = tokens
        self._known: OrderedDict[tuple[str, str], _Challenge] = OrderedDict()  # by header to answer in and realm

    def __repr__(self) -> str:
        return f"<Authorizer {self._username}>"

    def authorize(self, request: Request) -> None:
        """Put in credentials for the challenges that are known; others that it had are taken out."""
        for _, answers in CHALLENGED.values():
            request.remove(answers)
        for (answers, _), challenge in self._known.items():
            challenge.uses += 1
            credentials = answer_challenge(
                challenge.text,
                request.method,
                str(request.uri),
                self._username,
                self._password,
                self._tokens.text(16),
                challenge.uses,
            )
            request.add(answers, credentials)

    def challenged(self, request: Request, response: Response) -> bool:
        """Take note of the challenges in the response to `request`; whether it makes sense to send it again.

        It does not when fresh credentials were refused: the password is wrong. A nonce used before may have
        become too old without the challenger's saying so, thus it gets a new try.
        """
        found = list(_challenges(response))
        for answers, realm, challenge in found:
            known = self._known.get((answers, realm))
            given = [nonce for name, nonce in map(scope, request.all(answers)) if name == realm]
            if not given or is_stale(challenge):
                continue
            kept = known is None or known.nonce not in given or known.uses > 1
            if not kept or scope(challenge)[1] in given:
                return False
        for answers, realm, challenge in found:
            nonce = scope(challenge)[1]
            known = self._known.pop((answers, realm), None)
            uses = known.uses if known and known.nonce == nonce else 0
            self._known[answers, realm] = _Challenge(challenge, nonce, uses)
            if len(self._known) > MOST_REALMS:
                self._known.popitem(last=False)
        return bool(found)


def _challenges(response: Response) -> Iterator[tuple[str, str, str]]:
    """The header to answer in, the realm and the best challenge for it (RFC 8760 2.4).

    A proxy that forked collects those of all who were asked, of both kinds (RFC 3261 22.3).
    """
    for asks, answers in CHALLENGED.values():
        realms: dict[str, list[str]] = {}
        for challenge in response.all(asks):
            realms.setdefault(scope(challenge)[0], []).append(challenge)
        for realm, offered in realms.items():
            try:
                yield answers, realm, strongest(offered)
            except Malformed:  # not one that we can meet; perhaps another realm's is enough
                continue


def _next(request: Request) -> Request:
    return renumbered(request, request.cseq.number + 1)


def ask(
    transactions: Transactions,
    request: Request,
    flow: Flow,
    answered: Callable[[Response], None],
    authorizer: Authorizer | None,
    renew: Callable[[Request], Request] = _next,
    tries: int = MOST_TRIES,
) -> None:
    """`Transactions.request`, which answers challenges by the way; `answered` gets the response that is left.

    `renew` makes the request anew under the next CSeq, in a dialog `Dialog.again`.
    """
    if authorizer is None:
        transactions.request(request, flow, answered)
        return

    def responded(response: Response) -> None:
        if tries > 1 and response.code in CHALLENGED and authorizer.challenged(request, response):
            ask(transactions, renew(request), flow, answered, authorizer, renew, tries - 1)
        else:
            answered(response)

    authorizer.authorize(request)
    transactions.request(request, flow, responded)

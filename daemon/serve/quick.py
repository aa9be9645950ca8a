"""The common lookups, answered before anything else is built for them.

`GET /v1/owner?resource=ID`, and `POST /v1/owners` that came whole, with no other headers than those that say nothing,
are recognized in one match. What is not recognized, or has no plain answer, takes the long way through the parser and
the application, which say the same.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from time import monotonic
from urllib.parse import unquote_to_bytes

from daemon.errors import DatabaseUnusable
from daemon.serve.lookup import Lookup
from daemon.serve.parameters import LONGEST_BODY, batch
from daemon.serve.problems import Problem

# Headers that change nothing; of `Host`, names without a domain, as `daemon.serve.local` lets them pass.
_SILENT = (
    rb"[Hh]ost: ?[A-Za-z0-9_-]*(?::[0-9]{1,5})?|[Uu]ser-[Aa]gent: ?[ -~]*|[Aa]ccept(?:-[Ee]ncoding)?: ?[ -~]*"
    rb"|[Cc]onnection: ?[Kk]eep-[Aa]live"
)
_ONE = re.compile(
    # A query's characters (RFC 3986, 3.4), but for `&` and `+`, which mean something there.
    rb"GET /v1/owner\?resource=([A-Za-z0-9\-._~!$'()*,;=:@/?%]+) HTTP/1\.1\r\n"
    rb"(?:(?:" + _SILENT + rb")\r\n)*\r\n"
)
_MANY = re.compile(
    rb"POST /v1/owners HTTP/1\.1\r\n(?:(?:" + _SILENT + rb"|[Cc]ontent-[Tt]ype: ?[ -~]*)\r\n)*"
    rb"[Cc]ontent-[Ll]ength: ?([0-9]{1,7})\r\n(?:(?:" + _SILENT + rb"|[Cc]ontent-[Tt]ype: ?[ -~]*)\r\n)*\r\n"
)

Headers = Sequence[tuple[bytes, bytes]]
Later = Callable[[float, Callable[[], None]], object]

TURN = 0.001
"""Seconds for which lookups are answered from one generation: so much may an answer be behind what is published."""


class Quick:
    """Answers from one lookup, as bytes to send.

    What comes within `TURN` is answered from one generation, unless there was another request between: its answer may
    have told of a later one. `later` is the loop's `call_later`.
    """

    def __init__(self, lookup: Lookup, later: Later) -> None:
        self._lookup = lookup
        self._reader = lookup.reader
        self._later = later
        self._until = 0.0
        self.end_turn = self._reader.end_turn
        self._headers: Headers | None = None
        self._start = b""

    def answer(self, data: bytes, headers: Headers) -> bytes | None:
        """The response to `data`, if that is one common request, whole, that has an answer; else None.

        `headers`: what every response has; the same object while that is the same.
        """
        try:
            if one := _ONE.fullmatch(data):
                raw = one[1]
                if not self._reader.in_turn or monotonic() >= self._until:
                    self._begin()
                found = self._lookup.quick((unquote_to_bytes(raw) if b"%" in raw else raw).decode())
            elif (many := _MANY.match(data)) and len(data) - many.end() == int(many[1]) <= LONGEST_BODY:
                resources = batch(data[many.end() :])
                if not self._reader.in_turn or monotonic() >= self._until:
                    self._begin()
                found = self._lookup.quick_answers(resources)
            else:
                return None
        except (ValueError, Problem):  # no Unicode; or the copy is spoilt, and the database is not
            return None
        except (sqlite3.Error, DatabaseUnusable):
            self.end_turn()  # the error may have ended its transaction
            return None
        if found is None:
            return None
        if headers is not self._headers:
            lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            self._start = b"HTTP/1.1 200 OK\r\n" + lines + b"cache-control: no-store\r\ncontent-length: "
            self._headers = headers
        start = b"%s%d\r\ncontent-type: application/json\r\n\r\n" % (self._start, sum(map(len, found)))
        return b"".join((start, *found))

    def _begin(self) -> None:
        self.end_turn()  # if the loop was too busy to do it in time
        self._until = monotonic() + TURN
        self._reader.begin_turn()
        self._later(TURN, self.end_turn)

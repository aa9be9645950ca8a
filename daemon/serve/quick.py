"""The common lookups, answered before anything else is built for them.

`GET /v1/owner?resource=ID`, and `POST /v1/owners` that came whole, with no other headers than those that say nothing,
are recognized in one match. What is not recognized, or has no plain answer, takes the long way through the parser and
the application, which say the same.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from urllib.parse import unquote_to_bytes

from daemon.errors import DatabaseUnusable
from daemon.serve.lookup import ANY_AGE, Lookup
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


class Quick:
    """Answers from one lookup, as bytes to send.

    What one turn of the event loop answers, it answers from one generation. `soon` is the loop's `call_soon`.
    """

    def __init__(self, lookup: Lookup, soon: Callable[[Callable[[], None]], object]) -> None:
        self._lookup = lookup
        self._reader = lookup.reader
        self._soon = soon
        self._headers: Headers | None = None
        self._start = b""

    def answer(self, data: bytes, headers: Headers) -> bytes | None:
        """The response to `data`, if that is one common request, whole, that has an answer; else None.

        `headers`: what every response has; the same object while that is the same.
        """
        try:
            if one := _ONE.fullmatch(data):
                raw = one[1]
                self._begin()
                found = self._lookup.quick((unquote_to_bytes(raw) if b"%" in raw else raw).decode())
            elif (many := _MANY.match(data)) and len(data) - many.end() == int(many[1]) <= LONGEST_BODY:
                resources = batch(data[many.end() :])
                self._begin()
                found = self._lookup.answers(resources, ANY_AGE), b""
            else:
                return None
        except (UnicodeDecodeError, Problem, sqlite3.Error, DatabaseUnusable):
            return None
        if found is None:
            return None
        if headers is not self._headers:
            lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            self._start = b"HTTP/1.1 200 OK\r\n" + lines + b"cache-control: no-store\r\ncontent-length: "
            self._headers = headers
        head, tail = found
        length = len(head) + len(tail)
        return b"%s%d\r\ncontent-type: application/json\r\n\r\n%s%s" % (self._start, length, head, tail)

    def _begin(self) -> None:
        if not self._reader.in_turn:
            self._reader.begin_turn()
            self._soon(self._reader.end_turn)

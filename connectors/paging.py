"""The guard that every paging loop runs under."""

from __future__ import annotations

from hashlib import blake2b

from connectors.errors import Incomplete

MAX_PAGES = 1_000_000
"""More pages than any list has: at one object a page, still more than the largest source ownerd is made for."""


class Pages:
    """Sees each page token once; a token that comes again, or a list that never ends, is an error.

    A server that repeats a token would otherwise be read for ever, or, if the loop simply stopped, read short.
    """

    def __init__(self, what: str, *, most: int = MAX_PAGES) -> None:
        self._what = what
        self._most = most
        self._seen: set[bytes] = set()

    def turn(self, token: str) -> str:
        """Return `token`; Incomplete if it was seen before or there are too many."""
        digest = blake2b(token.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if digest in self._seen:
            raise Incomplete(f"{self._what}: the server gave the same page token twice, after {len(self._seen)} pages")
        self._seen.add(digest)
        if len(self._seen) > self._most:
            raise Incomplete(f"{self._what}: more than {self._most} pages")
        return token

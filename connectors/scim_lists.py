"""The lists of a SCIM 2.0 service: their pages, by index and by cursor, and how long they are.

RFC 7644 (protocol), RFC 9865 (cursors).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote

from connectors.answers import gone_meanwhile, rows_of, text_of
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, Misconfigured, ServerFault
from connectors.http import Api, part
from connectors.moving import TRIES, Moved, each_once
from connectors.paging import Pages
from connectors.scim_changes import clock_of

PAGE = 100
"""Rows asked for at once, where the service names no limit of its own."""
MOST = {"Users": 500, "Groups": 100}
"""Rows asked for at once, whatever the service allows: a group carries its members."""


class Provider(NamedTuple):
    """What ServiceProviderConfig says of lists (RFC 7643, 5; RFC 9865, 4), as far as it says."""

    cursor: bool
    size: int
    filters: bool


class Lists:
    """Reads the lists of one service. `clock` is the Date of the last page's answer."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.clock: int | None = None

    def rows(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Each row of a list once."""

        def pages(attempt: int) -> Iterator[list[dict[str, Any]]]:
            if self.provider.cursor:
                return self._by_cursor(path, query)
            return self._by_index(path, query, linked=attempt < TRIES - 1)

        return each_once(f"/{path}", pages, lambda row: text_of(row, "id", f"a row of {path}"))

    def _by_cursor(self, path: str, query: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
        """The pages of a list, each with the cursor of the next (RFC 9865, 2)."""
        pages = Pages(f"/{path}")
        cursor, count, totals = "", 0, set()
        while True:
            body = self._page(path, query, cursor=cursor)
            total = body.get("totalResults")  # a service may leave it out here
            if total is not None and not isinstance(total, int):
                raise ServerFault(f"/{path}: totalResults is no number")
            rows = _resources(body, path, done=total == 0)
            totals.add(total)
            yield rows
            count += len(rows)
            if not body.get("nextCursor"):
                break
            cursor = pages.turn(text_of(body, "nextCursor", f"/{path}"))
        if isinstance(total, int):
            _whole(path, count, total, steady=len(totals) == 1)

    def _by_index(self, path: str, query: Mapping[str, str], *, linked: bool) -> Iterator[list[dict[str, Any]]]:
        """The pages of a list by their place in it (RFC 7644, 3.4.2.4), until one holds nothing new.

        Rows that are added or go meanwhile shift those after them. So each page begins with the last row of the one
        before (`linked`): if it does not, the list has moved. Where pages cannot be linked, `totalResults` must stay.
        """
        pages = Pages(f"/{path}")
        start, count, totals = 1, 0, set()
        first: list[Any] = []
        before: list[Any] = []
        last: Any = None
        while True:
            pages.turn(str(start))
            body = self._page(path, query, startIndex=start)
            total = part(body, "totalResults", int, f"/{path}")
            rows = _resources(body, path, done=count >= total)
            ids = [row.get("id") for row in rows]
            if ids and ids == first and count == total and self._all_told(path, query, first):
                return
            # A service that counts pages leads a place on the last one to its beginning; past it, there is nothing.
            last_again = not linked and ids and ids == before != first and count == total
            if last_again and self._is_past_the_end(path, query, count + len(first) + 1):
                return
            if last is not None:
                if not ids or ids[0] != last:
                    raise Moved(f"the page at {start} did not begin where the one before ended")
                rows = rows[1:]
            totals.add(total)
            if not linked and len(totals) > 1:
                raise Moved("totalResults changed")
            yield rows
            count += len(rows)
            if not rows and last is not None and count < total:  # a page so short that the link is all of it
                start, last = count + 1, None
                continue
            if not rows:
                break
            first, before = first or ids, ids
            last = ids[-1] if linked and len(ids) > 1 else None  # pages of one row cannot be linked
            start = count if last is not None else count + 1
        _whole(path, count, total, steady=len(totals) == 1)

    def _all_told(self, path: str, query: Mapping[str, str], first: list[Any]) -> bool:
        """Whether the first page, which came again, is all: of a service that counts pages, or that knows none."""
        if self._is_past_the_end(path, query, self._size(path) + 1):
            return True
        one = self._page(path, query, startIndex=1, count=1)
        return [row.get("id") for row in _resources(one, path, done=False)] == first  # heeds no count, either

    def _is_past_the_end(self, path: str, query: Mapping[str, str], start: int) -> bool:
        return not _resources(self._page(path, query, startIndex=start), path, done=True)

    def _page(self, path: str, query: Mapping[str, str], **where: Any) -> dict[str, Any]:
        asked = {"count": self._size(path), **where, **query}
        answer = self._api.get(path, permission=right(path), **asked)
        if not isinstance(answer.body, dict):
            raise ServerFault(f"/{path}: the answer is no list of SCIM's")
        self.clock = clock_of(answer.headers)
        return answer.body

    def total(self, path: str, **query: str) -> int:
        """How long a list is, by a page of no rows (RFC 7644, 3.4.2.4)."""
        total: int = part(self._page(path, query, count=0), "totalResults", int, f"/{path}")
        return total

    def first(self, path: str, **query: str) -> tuple[list[dict[str, Any]], int]:
        """The first row of a list, if there is one, and how long the list is."""
        body = self._page(path, query, count=1)
        total = part(body, "totalResults", int, f"/{path}")
        return _resources(body, path, done=total == 0), total

    def one(self, path: str, id_: str, **query: str) -> dict[str, Any]:
        """One object, by its id."""
        what = f"{path.removesuffix('s').lower()} {id_}"
        body: dict[str, Any] = self._api.get(f"{path}/{quote(id_, safe='')}", permission=right(path), **query).body
        if text_of(body, "id", what) != id_:
            raise BadData(f"{what}: asked for it, the service gave another")
        return body

    def _size(self, path: str) -> int:
        return min(self.provider.size, MOST[path])

    @cached_property
    def provider(self) -> Provider:
        """How the service pages, and whether it filters."""
        try:
            config = self._api.get("ServiceProviderConfig").body
        except (Forbidden, Misconfigured):  # many services have none, or show it to nobody
            config = {}
        pagination, filters = _object(config, "pagination"), _object(config, "filter")
        size = pagination.get("maxPageSize") or filters.get("maxResults")
        return Provider(
            pagination.get("cursor") is True,
            size if isinstance(size, int) and size > 0 else PAGE,
            filters.get("supported") is True,
        )


def _object(document: Any, key: str) -> Mapping[str, Any]:
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def right(path: str) -> str:
    """SCIM names no permissions."""
    return f"the right to read /{path}"


def _resources(body: dict[str, Any], path: str, *, done: bool) -> list[dict[str, Any]]:
    """The rows of a page. They may be left out where there are none: if `done`, or if the page says so."""
    if body.get("Resources") is None and (done or body.get("itemsPerPage") == 0):
        return []
    return rows_of(part(body, "Resources", list, f"/{path}"), f"/{path}")


def _whole(path: str, count: int, total: int, *, steady: bool) -> None:
    """`totalResults` may be too low (that is no harm: the list was read to its end), but never too high."""
    if count < total and not steady:
        raise Moved("totalResults changed")
    if count < total:
        raise Incomplete(
            f"/{path}: {count} of {total}, and no further page",
            remedy="the service shows fewer than it counts: let the token's owner see all",
        )


def told(document: Any) -> str:
    """SCIM's own words (RFC 7644, 3.12): {"status": "400", "scimType": "invalidCursor", "detail": "…"}."""
    words = [document.get(key) for key in ("scimType", "detail")]
    sentence = ": ".join(word for word in words if isinstance(word, str) and word)
    return sentence or str(document.get("message") or document.get("error_description") or "")


def meant(place: str, status: int, sentence: str) -> ConnectorError | None:
    """What SCIM's errors mean beyond their status."""
    if status == 400 and sentence.startswith(("expiredCursor", "invalidCursor")):
        return Incomplete(f"{place}: the service does not know its own cursor any more: {sentence}")
    if status == 400 and sentence.startswith("tooMany"):
        return Incomplete(
            f"{place}: the service refuses to show so many: {sentence}", remedy="raise its limit for this token"
        )
    if status == 501:
        return Misconfigured(f"{place}: the service does not have this: 501{f' ({sentence})' if sentence else ''}")
    return gone_meanwhile(place, status, "/Groups/")

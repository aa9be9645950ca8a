"""Users, groups and memberships of a PingOne environment.

API reference: https://developer.pingidentity.com/pingone-api/platform/ (Users, Groups, Group Membership, Populations;
reference/paging-ordering-collections)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from connectors.answers import attributes_of, gone_meanwhile, one_line, plain, rows_of, text_of
from connectors.client_credentials import Client
from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete
from connectors.http import Api, part
from connectors.options import HttpOptions, Secret
from connectors.paging import Pages
from connectors.values import Gap, Kind, Members, Principal, Record, Ref

DIRECTORY = "directory"
LIMIT = 200
"""Entries a page: the most that PingOne gives of users."""
RIGHT = "the role Identity Data Read Only, or Identity Data Admin"
"""https://docs.pingidentity.com/pingone/directory/p1_roles.html"""
_NOT_ATTRIBUTES = frozenset({"id", "name", "email", "enabled", "mfaEnabled", "updatedAt"})


class PingOneOptions(HttpOptions):
    """Options of the `pingone` connector."""

    environment_id: str = Field(description="Id of the environment; the worker application must be in it.")
    region: Literal["com", "ca", "eu", "com.au", "sg", "asia"] = Field(
        "com", description="Top-level domain of the environment's region."
    )
    client_id: str = Field(description="Client id of a worker application.")
    client_secret: Secret = Field(description="Its client secret.")

    @field_validator("environment_id")
    @classmethod
    def _is_uuid(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value):
            raise PydanticCustomError("environment_id", "an environment's id is a UUID")
        return value


class PingOne(Connector):
    """Reads one environment. Users and groups are one scope, since they belong together."""

    Options = PingOneOptions

    def __init__(self, options: PingOneOptions) -> None:
        self.options = options
        base = options.endpoint or f"https://api.pingone.{options.region}"
        self._client = Client(
            options,
            Api(options, base, headers={"Accept": "application/hal+json, application/json"}, meant=_meant),
            issuer=options.endpoint or f"https://auth.pingone.{options.region}",
            path=f"{options.environment_id}/as/token",
            client_id=options.client_id,
            client_secret=options.client_secret,
            body={"data": {"grant_type": "client_credentials"}},
        )
        self._place = f"v1/environments/{options.environment_id}"

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def scopes(self) -> Iterable[str]:
        """The directory."""
        return [DIRECTORY]

    def holds(self, scope: str) -> Collection[Kind]:
        """Users and groups."""
        del scope
        return frozenset({Kind.USER, Kind.GROUP})

    def read(self, scope: str) -> Iterator[Record]:
        """Yield users; groups, if they own, with their members and how they are nested."""
        del scope
        populations = {text_of(row, "id", "a population"): plain(row.get("name")) for row in self._rows("populations")}
        for row in self._rows("users"):
            yield _user(row, populations)
        if Kind.GROUP not in self.kinds:
            return
        counted: dict[str, tuple[int | None, int | None]] = {}
        for row in self._rows("groups"):
            group = _group(row)
            counted[group.id] = _direct(row)
            yield group
        lagging = ""
        for id_, (direct, _) in counted.items():
            count = 0
            for members in self._members(id_):
                count += len(members.members)
                yield members
            if direct is not None and count < direct:
                lagging = lagging or f"of group {id_} {count} of {direct}"
        if any(children != 0 for _, children in counted.values()):
            yield from self._nested(counted)
        if lagging:
            yield Gap(
                "members_lag",
                f"PingOne shows fewer members than it counts: {lagging}",
                "if it stays so, give the worker application its role for the whole environment, not for a population",
            )

    def _members(self, group: str) -> Iterator[Members]:
        """The users in one group, direct or by its filter. A list of users does not tell which groups they are in."""
        for page in self._pages("users", filter=f'memberOfGroups[id eq "{_safe(group)}"]'):
            ids = (text_of(row, "id", f"a member of group {group}") for row in page)
            yield Members(Ref(Kind.GROUP, group), tuple(Ref(Kind.USER, id_) for id_ in ids))

    def _nested(self, groups: Collection[str]) -> Iterator[Members]:
        """Which groups are in which: PingOne tells each one's parents."""
        for child in groups:
            for row in self._rows(f"groups/{quote(child, safe='')}/memberOfGroups"):
                parent = text_of(row, "id", f"a parent of group {child}")
                if parent in groups:  # one that was made a moment ago comes with the next run
                    yield Members(Ref(Kind.GROUP, parent), (Ref(Kind.GROUP, child),))

    # Lists

    def _rows(self, path: str) -> Iterator[dict[str, Any]]:
        for page in self._pages(path):
            yield from page

    def _pages(self, path: str, **query: str) -> Iterator[list[dict[str, Any]]]:
        """The pages of a list: HAL, with a link to the next one."""
        key = "groupMemberships" if path.endswith("/memberOfGroups") else path
        pages = Pages(path)
        url, asked = f"{self._place}/{path}", {"limit": LIMIT, **query}
        seen = 0
        while True:
            body = self._client.get(url, permission=RIGHT, **asked).body
            rows = rows_of(part(part(body, "_embedded", dict, path), key, list, path), path)
            seen += len(rows)
            yield rows
            links = part(body, "_links", dict, path)
            if links.get("next") is None:
                told = body.get("count")  # not every list has it, and it may lag: so it is no sum to be met
                if not rows and isinstance(told, int) and seen < told:
                    raise Incomplete(f"{path}: an empty page after {seen} of {told}")
                return
            link = pages.turn(text_of(links["next"], "href", f"{path}: the next page"))
            url, asked = _with(link, query), {}

    # Whether it may

    def check(self) -> Iterator[Check]:
        """Ask each list that a run reads for one entry."""
        for what in ("users", "populations", "groups") if Kind.GROUP in self.kinds else ("users", "populations"):
            try:
                self._client.get(f"{self._place}/{what}", permission=RIGHT, limit=1)
            except Forbidden as error:
                yield Check(f"read {what}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {what}", ok=True)


def _with(link: str, query: Mapping[str, str]) -> str:
    """The link with the filter, if it has dropped it: all users would be members."""
    there = dict(parse_qsl(urlsplit(link).query))
    if all(there.get(key) == value for key, value in query.items()):
        return link
    return urlsplit(link)._replace(query=urlencode({**there, **query})).geturl()


def _group(row: Mapping[str, Any]) -> Principal:
    id_ = text_of(row, "id", "a group")
    attributes = attributes_of(row, but=_NOT_ATTRIBUTES)
    return Principal(Kind.GROUP, id_, text_of(row, "name", f"group {id_}"), attributes=attributes)


def _direct(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """How many users and groups are in this one directly, as PingOne counts; None where it does not tell."""
    counts = row.get("directMemberCounts")
    users, groups = (counts.get(key) if isinstance(counts, dict) else None for key in ("users", "groups"))
    return users if isinstance(users, int) else None, groups if isinstance(groups, int) else None


def _safe(id_: str) -> str:
    """An id that can stand in a filter."""
    if not re.fullmatch(r"[0-9A-Za-z_-]+", id_):
        raise BadData(f"group {one_line(id_)}: an id that is none of PingOne's")
    return id_


def _user(row: Mapping[str, Any], populations: Mapping[str, str | None]) -> Principal:
    id_ = text_of(row, "id", "a user")
    what = f"user {id_}"
    login = text_of(row, "username", what)
    name = row.get("name")
    names: Mapping[str, Any] = name if isinstance(name, dict) else {}
    whole = " ".join(text for key in ("given", "family") if (text := plain(names.get(key))))
    attributes = attributes_of(names, but=frozenset({"formatted"})) | attributes_of(row, but=_NOT_ATTRIBUTES)
    population = text_of(part(row, "population", dict, what), "id", f"the population of {what}")
    attributes["population"] = [population, *filter(None, [populations.get(population)])]
    email = plain(row.get("email"))
    return Principal(
        Kind.USER,
        id_,
        plain(names.get("formatted")) or whole or login,
        email or (login if "@" in login else None),
        _active(row, what),
        aliases=(login,) if email and "@" in login and login != email else (),
        attributes=attributes,
    )


def _active(row: Mapping[str, Any], what: str) -> bool:
    """Enabled, and, where one has registered oneself, verified: until then the name and address are claims."""
    lifecycle = row.get("lifecycle")
    status = lifecycle.get("status") if isinstance(lifecycle, dict) else None
    return part(row, "enabled", bool, what) and status in {None, "ACCOUNT_OK"}


def _meant(place: str, status: int, _sentence: str) -> ConnectorError | None:
    return gone_meanwhile(place, status, "/groups/")

"""Users, teams and on-call schedules of a Splunk On-Call (VictorOps) organization.

API reference: https://portal.victorops.com/public/api-docs.html (Users, Teams, On-call)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from pydantic import Field

from connectors import retry
from connectors.answers import attributes_of, gone_meanwhile, plain, rows_of, text_of
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, Throttled
from connectors.http import Answer, Api, part
from connectors.options import HttpOptions, Secret
from connectors.pace import Pace
from connectors.shifts import FOREVER, OnCallSystem, moment, shifts
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Ref, Shift

A_MINUTE = 60
"""Requests that each call of the API serves a minute."""
APART = 0.5
"""Seconds between requests: two a second are served."""
DAYS = int(SHIFT_HORIZON // 86400) + 1
PEOPLE = frozenset({"user", "rotation_group", "rotation_group_next", "rotation_group_previous"})
"""Steps of an escalation policy that put people on call. The others call teams, policies, webhooks, addresses."""


class SplunkOnCallOptions(HttpOptions):
    """Options of the `splunk_oncall` connector."""

    api_id: str = Field(min_length=1, description="The organization's API ID.")
    api_key: Secret = Field(description="An API key of the organization; a read-only one is enough.")


class SplunkOnCall(OnCallSystem):
    """Reads one organization. An escalation policy is a schedule: its first step tells who is on call."""

    Options = SplunkOnCallOptions

    def __init__(self, options: SplunkOnCallOptions) -> None:
        self._api = Api(
            options,
            options.endpoint or "https://api.victorops.com",
            headers={"X-VO-Api-Id": options.api_id, "X-VO-Api-Key": options.api_key.value},
            credentials="the API id and key",
            meant=_meant,
        )
        self._pace = Pace()
        self._last = float("-inf")

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def _directory(self) -> Iterator[Record]:
        place = "users"
        users = rows_of(part(self._get(place, "api-public/v2/user").body, "users", list, place), place)
        if not users:
            raise Incomplete(f"{place}: none, and the API key is somebody's")
        yield from map(_user, users)
        if Kind.GROUP in self.kinds:
            for row in self._teams():
                slug = text_of(row, "slug", "a team")
                attributes = attributes_of(row, but=frozenset({"name", "version", "memberCount", "isDefaultTeam"}))
                attributes = {k: v for k, v in attributes.items() if not k.startswith("_")}
                team = Principal(Kind.GROUP, slug, text_of(row, "name", f"team {slug}"), attributes=attributes)
                yield team
                place = f"members of team {slug}"
                answer = self._get("members", f"api-public/v1/team/{quote(slug, safe='')}/members")
                members = rows_of(part(answer.body, "members", list, place), place)
                if not members and row.get("memberCount"):
                    raise Incomplete(f"{place}: none of the {row['memberCount']} that the list of teams counts")
                yield Members(team.ref, tuple(_ref(row, place) for row in members))

    def _teams(self) -> list[dict[str, Any]]:
        return rows_of(self._get("teams", "api-public/v1/team").body, "teams")

    def _schedules(self) -> Iterator[Record]:
        now = self.clock()
        seen: set[str] = set()
        for row in self._teams():
            slug = text_of(row, "slug", "a team")
            what = f"schedules of team {slug}"
            answer = self._get(
                "schedules",
                f"api-public/v2/team/{quote(slug, safe='')}/oncall/schedule",
                daysForward=DAYS,
                daysSkip=0,
                step=0,
            )
            for found in rows_of(part(answer.body, "schedules", list, what), what):
                policy = part(found, "policy", dict, what)
                id_ = text_of(policy, "slug", f"a policy of team {slug}")
                name, team = text_of(policy, "name", f"policy {id_}"), text_of(row, "name", f"team {slug}")
                schedule = Principal(
                    Kind.SCHEDULE, id_, name, attributes={"team": team, "full_name": f"{team} : {name}"}
                )
                if id_ in seen:
                    raise BadData(f"policy {id_} is in two teams")
                seen.add(id_)
                yield schedule
                yield from _on_call(schedule.ref, found, now)

    def _tries(self) -> Iterator[tuple[str, Callable[[], object]]]:
        yield "read users", partial(self._get, "users", "api-public/v2/user")
        if self.kinds & {Kind.GROUP, Kind.SCHEDULE}:
            yield "read teams and schedules", self._teams

    def _get(self, bucket: str, path: str, **query: Any) -> Answer:
        """The answer, asked for in time: the API tells its limits in its reference only."""
        self._pace.keep(bucket)
        if (wait := self._last + APART - time.monotonic()) > 0:
            retry.sleep(wait)
        self._last = time.monotonic()
        now = self.clock()
        ends = (now // 60 + 1) * 60
        self._pace.count(bucket, limit=A_MINUTE, remaining=A_MINUTE, ends=ends, wait=ends - now)
        return self._api.get(path, **query)


def _ref(row: Any, what: str) -> Ref:
    # Usernames are not told apart by case, and lists do not always agree in it.
    return Ref(Kind.USER, text_of(row, "username", what).lower())


def _user(row: Mapping[str, Any]) -> Principal:
    ref = _ref(row, "a user")
    names = (plain(row.get("firstName")), plain(row.get("lastName")))
    attributes = attributes_of(
        row, but=frozenset({"displayName", "email", "_selfUrl", "verified", "createdAt", "passwordLastUpdated"})
    )
    return Principal(
        Kind.USER,
        ref.id,
        plain(row.get("displayName")) or " ".join(filter(None, names)) or ref.id,
        plain(row.get("email")),  # whoever is deleted is in no list, and nobody can be switched off
        attributes=attributes,
    )


def _on_call(schedule: Ref, found: Mapping[str, Any], now: float) -> Iterator[Shift | Gap]:
    what = f"schedule {schedule.id}"
    overrides = [_override(row, what) for row in rows_of(found.get("overrides", []), f"overrides of {what}")]
    for entry in rows_of(found.get("schedule"), what):
        kind = text_of(entry, "onCallType", what)
        if kind not in PEOPLE:
            yield Gap(
                "steps_without_people",
                "the first step of escalation policies calls teams, other policies, webhooks or addresses: "
                "whom those reach is not read",
                "let the first step call a rotation or a user",
            )
            continue
        rolls = rows_of(entry.get("rolls"), f"rolls of {what}")
        spans = [
            (_ref(roll["onCallUser"], what), moment(roll.get("start"), what), moment(roll.get("end"), what))
            for roll in rolls
            if roll.get("onCallUser")  # a gap in the rotation has none
        ]
        if entry.get("onCallUser") and entry.get("shiftRoll") and not _covered(rolls, now, what):
            # The turns that are listed begin with the next; this one lasts until the hand-over.
            spans.append((_ref(entry["onCallUser"], what), 0.0, moment(entry["shiftRoll"], what)))
        if kind == "user" and not rolls and entry.get("onCallUser"):  # named in the policy: always on call
            spans = [(_ref(entry["onCallUser"], what), 0.0, FOREVER)]
        for member, start, end in spans:
            for over, parts in _overridden(member, start, end, overrides):
                yield from shifts(schedule, over, parts, now)
    for orig, over, start, end in overrides:
        if orig is None:  # taken on call where nobody was
            yield from shifts(schedule, over, [(start, end)], now)


def _covered(rolls: list[dict[str, Any]], now: float, what: str) -> bool:
    return any(moment(roll.get("start"), what) <= now < moment(roll.get("end"), what) for roll in rolls)


_Override = tuple[Ref | None, Ref, float, float]


def _override(row: Mapping[str, Any], what: str) -> _Override:
    orig = row.get("origOnCallUser")
    return (
        _ref(orig, what) if orig else None,
        _ref(part(row, "overrideOnCallUser", dict, f"an override of {what}"), what),
        moment(row.get("start"), what),
        moment(row.get("end"), what),
    )


def _overridden(
    member: Ref, start: float, end: float, overrides: list[_Override]
) -> Iterator[tuple[Ref, list[tuple[float, float]]]]:
    """Who is on call in the place of `member`, and when; `member` for what is left."""
    left = [(start, end)]
    for orig, over, begins, ends in overrides:
        if orig == member and begins < end and ends > start:
            yield over, [(max(start, begins), min(end, ends))]
            left = [piece for a, b in left for piece in ((a, min(b, begins)), (max(a, ends), b)) if piece[0] < piece[1]]
    yield member, left


def _meant(place: str, status: int, sentence: str) -> ConnectorError | None:
    """The reference says of 403: "Authentication failed or rate-limit reached"."""
    if status == 403 and any(word in sentence.lower() for word in ("rate", "limit", "too many")):
        return Throttled(f"{place}: too many requests: 403 ({sentence})")
    if status == 403:
        return Forbidden(
            f"{place}: the API id and key are refused: 403{f' ({sentence})' if sentence else ''}",
            remedy="compare api_id with Integrations, API; make a new key there; or a rate limit was reached",
        )
    return gone_meanwhile(place, status, "/team/")

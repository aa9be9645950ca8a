"""Users, teams and on-call schedules of an Opsgenie account. Opsgenie and its API end on 5 April 2027.

API reference: https://docs.opsgenie.com/docs/api-overview (User, Team, Schedule APIs; Pagination; Rate Limiting)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from pydantic import Field

from connectors.answers import attributes_of, gone_meanwhile, plain, rows_of, text_of
from connectors.contract import Check
from connectors.errors import BadData, ConnectorError, Incomplete, Unauthenticated
from connectors.http import Api, part, retry_after
from connectors.options import HttpOptions, Secret
from connectors.paging import Pages
from connectors.shifts import OnCallSystem, moment, touches, utc
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Ref, Shift

PAGE = 100
RIGHTS = "Read and Configuration access of the API key"
"""https://docs.opsgenie.com/docs/api-access-management"""
ENDS = "Opsgenie and its API end on 5 April 2027"


class OpsgenieOptions(HttpOptions):
    """Options of the `opsgenie` connector."""

    api_key: Secret = Field(description="Key of an API integration that belongs to no team.")


class Opsgenie(OnCallSystem):
    """Reads one Opsgenie account."""

    Options = OpsgenieOptions

    def __init__(self, options: OpsgenieOptions) -> None:
        self._api = Api(
            options,
            options.endpoint or "https://api.opsgenie.com",
            headers={"Authorization": f"GenieKey {options.api_key.value}"},
            credentials="the API key",
            meant=_meant,
            wait=_until_unthrottled,
        )
        self._team_members: dict[str, tuple[Ref, ...]] = {}

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def _directory(self) -> Iterator[Record]:
        for row in self._rows("v2/users", limit=PAGE, sort="username", order="asc"):
            yield _user(row)
        if Kind.GROUP in self.kinds:
            for row in self._rows("v2/teams"):
                id_ = text_of(row, "id", "a team")
                team = Principal(
                    Kind.GROUP,
                    id_,
                    text_of(row, "name", f"team {id_}"),
                    attributes=attributes_of(row, but=frozenset({"id", "name", "links"})),
                )
                yield team
                yield Members(team.ref, self._members(id_))

    def _members(self, team: str) -> tuple[Ref, ...]:
        if team not in self._team_members:
            answer = self._api.get(f"v2/teams/{quote(team, safe='')}", permission=RIGHTS, identifierType="id")
            found = part(answer.body, "data", dict, f"team {team}")
            what = f"a member of team {team}"
            users = [
                part(row, "user", dict, what) for row in rows_of(found.get("members", []), f"members of team {team}")
            ]
            self._team_members[team] = tuple(Ref(Kind.USER, text_of(user, "id", what)) for user in users)
        return self._team_members[team]

    def _schedules(self) -> Iterator[Record]:
        now = self.clock()
        for row in self._rows("v2/schedules"):
            id_ = text_of(row, "id", "a schedule")
            enabled = part(row, "enabled", bool, f"schedule {id_}")
            attributes = attributes_of(row, but=frozenset({"id", "name", "enabled", "rotations", "ownerTeam"}))
            if team := _name(row.get("ownerTeam")):
                attributes["team"] = team
            schedule = Principal(
                Kind.SCHEDULE, id_, text_of(row, "name", f"schedule {id_}"), active=enabled, attributes=attributes
            )
            yield schedule
            if enabled:  # nobody is on call in one that is switched off
                yield from self._shifts(schedule, now)

    def _shifts(self, schedule: Principal, now: float) -> Iterator[Shift | Gap]:
        what = f"schedule {schedule.id}"
        days = int(SHIFT_HORIZON // 86400) + 2
        day = now // 86400 * 86400  # not the moment: a period that began with it would be another at each poll
        answer = self._api.get(
            f"v2/schedules/{quote(schedule.id, safe='')}/timeline",
            permission=RIGHTS,
            identifierType="id",
            interval=days,
            intervalUnit="days",
            date=utc(day),
        )
        timeline = part(answer.body, "data", dict, what)
        begins, ends = moment(timeline.get("startDate"), what), moment(timeline.get("endDate"), what)
        if begins > now or ends < now + SHIFT_HORIZON:
            raise Incomplete(f"{what}: the timeline does not cover the {days} days that were asked for")
        final = part(timeline, "finalTimeline", dict, what)
        for rotation in rows_of(final.get("rotations"), f"rotations of {what}"):
            if rotation.get("deleted") is True:  # carries what was
                continue
            for period in rows_of(rotation.get("periods", []), f"periods of {what}"):
                start, end = moment(period.get("startDate"), what), moment(period.get("endDate"), what)
                if touches(start, end, now):
                    # Of a past period the users who were on call are told; of others, whom the rotation names.
                    told = period.get("flattenedRecipients") or [period.get("recipient") or {"type": "none"}]
                    for recipient in rows_of(told, what):
                        yield from self._on_call(schedule, recipient, start, end)

    def _on_call(
        self, schedule: Principal, recipient: Mapping[str, Any], start: float, end: float
    ) -> Iterator[Shift | Gap]:
        kind = text_of(recipient, "type", f"a period of schedule {schedule.id}")
        if kind in {"none", "noone"}:
            return
        id_ = text_of(recipient, "id", f"a period of schedule {schedule.id}")
        if kind == "user":
            yield Shift(schedule.ref, Ref(Kind.USER, id_), start, end)
        elif kind == "team":
            for member in self._members(id_):
                yield Shift(schedule.ref, member, start, end)
        elif kind == "escalation":
            yield Gap(
                "escalations_in_schedules",
                "schedules have escalations as participants: who is on call through one is not read",
                "put users or teams into the rotations",
            )
        else:
            raise BadData(f"schedule {schedule.id}: a period with a {kind!r} on call")

    def _rows(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        pages = Pages(path)
        count = 0
        while True:
            body = self._api.get(path, permission=RIGHTS, **query).body
            rows = rows_of(part(body, "data", list, path), path)
            count += len(rows)
            yield from rows
            paging = part(body, "paging", dict, path) if body.get("paging") is not None else {}
            if paging.get("next") is None:
                break
            path, query = pages.turn(text_of(paging, "next", path)), {}
        total = body.get("totalCount")
        if isinstance(total, int) and count < total:
            raise Incomplete(f"{path.partition('?')[0]}: {count} of {total}, and no further page")

    def _tries(self) -> Iterator[tuple[str, Callable[[], object]]]:
        wanted = ["users"]
        wanted += ["teams"] if Kind.GROUP in self.kinds else []
        wanted += ["schedules"] if Kind.SCHEDULE in self.kinds else []
        for path in wanted:
            query = {"limit": 1} if path == "users" else {}
            yield f"read {path}", partial(self._api.get, f"v2/{path}", permission=RIGHTS, **query)

    def check(self) -> Iterator[Check]:
        """Ask for one page of each list, and tell when Opsgenie ends."""
        yield from super().check()
        yield Check("Opsgenie's end", ok=True, detail=ENDS, remedy="move to another directory before")


def _user(row: Mapping[str, Any]) -> Principal:
    id_ = text_of(row, "id", "a user")
    what = f"user {id_}"
    login = text_of(row, "username", what)  # is the e-mail address
    attributes = attributes_of(row, but=frozenset({"id", "username", "fullName", "blocked", "userAddress", "role"}))
    if role := _name(row.get("role")):
        attributes["role"] = role
    details = row.get("details")
    for key, values in (details if isinstance(details, dict) else {}).items():
        attributes |= attributes_of({f"details.{key}": values})
    active = not part(row, "blocked", bool, what)
    return Principal(Kind.USER, id_, plain(row.get("fullName")) or login, login, active, attributes=attributes)


def _name(value: Any) -> str | None:
    return plain(value.get("name") if isinstance(value, dict) else value)


def _until_unthrottled(headers: Mapping[str, str]) -> float | None:
    """Seconds for which Opsgenie throttles (https://docs.opsgenie.com/docs/api-rate-limiting)."""
    told = headers.get("x-ratelimit-period-in-sec", "")
    return float(told) if re.fullmatch(r"\d+(\.\d+)?", told) else retry_after(headers)


def _meant(place: str, status: int, sentence: str) -> ConnectorError | None:
    if status == 403 and "authenticate" in sentence.lower():
        return Unauthenticated(
            f"{place}: the API key was refused: 403 ({sentence})",
            remedy="it is wrong, or its integration is off; of an EU account, set `endpoint` to https://api.eu.opsgenie.com",
        )
    if status == 422 and place.endswith("/v2/users"):
        return Incomplete(
            f"{place}: Opsgenie shows the first 20,000 users only{f' ({sentence})' if sentence else ''}",
            remedy="read users and teams from the identity provider that provisions them",
        )
    return gone_meanwhile(place, status, "/v2/schedules/") or gone_meanwhile(place, status, "/v2/teams/")

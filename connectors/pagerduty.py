"""Users, teams and on-call schedules of a PagerDuty account.

Requests go through PagerDuty's own client; paging, retries and pace are ours. The client's paging helper only warns
past the offset 10,000 and ends as if all had been read; it retries a 429 without end, with sleeps of its own.
API reference: https://developer.pagerduty.com/api-reference/ (REST API v2; shift-based schedules: v3)
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import Field

from connectors.answers import attributes_of, gone_meanwhile, rows_of, text_of
from connectors.errors import BadData, ConnectorError, Incomplete, Misconfigured
from connectors.http import Api, check_sendable, client_settings, part, retry_after
from connectors.options import HttpOptions, Secret
from connectors.pace import Pace
from connectors.shifts import OnCallSystem, moment, touches, utc
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Ref, Shift

if TYPE_CHECKING:
    import pagerduty

PAGE = 100
"""Entries a page: the most that PagerDuty gives."""
MOST = 10_000
"""PagerDuty serves no page that ends past this offset. https://developer.pagerduty.com/docs/pagination"""

USERS, TEAMS, READ_SCHEDULES = "users.read", "teams.read", "schedules.read"
_BOILERPLATE = frozenset(
    {"id", "name", "email", "type", "summary", "self", "html_url", "avatar_url", "color", "invitation_sent", "teams"}
)
_SHIFT_BASED = {"Accept": "application/json", "X-EARLY-ACCESS": "flexible-schedules-early-access"}
"""What the v3 schedules want. The client's own Accept header asks for version 2 of an answer."""


class PagerDutyOptions(HttpOptions):
    """Options of the `pagerduty` connector."""

    token: Secret = Field(description="REST API key, or a scoped OAuth token (pdus+…, pdeu+…).")


class _Lacking(BadData):
    """402: the account's plan lacks a feature."""


class PagerDuty(OnCallSystem):
    """Reads one PagerDuty account."""

    Options = PagerDutyOptions

    def __init__(self, options: PagerDutyOptions) -> None:
        self.options = options
        self._base = (options.endpoint or "https://api.pagerduty.com").rstrip("/")
        self._pace = Pace()
        self._opened: pagerduty.RestApiV2Client | None = None
        self._api = Api(options, self._base, send=self._send, wait=_until_reset, meant=_meant, told=_told)

    def close(self) -> None:
        """Let go of connections."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _directory(self) -> Iterator[Record]:
        teams: set[str] = set()
        if Kind.GROUP in self.kinds:
            try:
                for row in self._rows("teams", permission=TEAMS):
                    id_ = text_of(row, "id", "a team")
                    teams.add(id_)
                    yield Principal(
                        Kind.GROUP,
                        id_,
                        text_of(row, "name", f"team {id_}"),
                        attributes=attributes_of(row, but=_BOILERPLATE),
                    )
            except _Lacking as error:
                yield Gap("teams_not_in_plan", error.message, "PagerDuty's plans from Professional upwards have teams")
        for page in self._pages("users", permission=USERS):
            members: defaultdict[str, list[Ref]] = defaultdict(list)
            for row in page:
                user = _user(row)
                yield user
                # A user tells the teams: asking each team would take a request a team.
                for team in rows_of(row.get("teams"), f"teams of user {user.id}") if teams else ():
                    members[text_of(team, "id", f"a team of user {user.id}")].append(user.ref)
            for id_, refs in members.items():
                if id_ in teams:  # one that was made a moment ago comes with the next run
                    yield Members(Ref(Kind.GROUP, id_), tuple(refs))

    def _schedules(self) -> Iterator[Record]:
        now = self.clock()
        window = {"since": utc(now), "until": utc(now + SHIFT_HORIZON + 1), "time_zone": "UTC", "overflow": "true"}
        seen: set[str] = set()
        try:
            for row in self._rows("v3/schedules", "schedules", permission=READ_SCHEDULES, headers=_SHIFT_BASED):
                schedule = _schedule(row)
                seen.add(schedule.id)
                yield schedule
                query = {**window, "include[]": "final_schedule"}
                final = self._final("v3/schedules", schedule.id, query, _SHIFT_BASED)
                for entry in rows_of(final.get("computed_shift_assignments"), f"shifts of schedule {schedule.id}"):
                    member = part(entry, "member", dict, f"a shift of schedule {schedule.id}")
                    if member.get("type") != "empty_member":
                        on_call = text_of(member, "user_id", f"a shift of schedule {schedule.id}")
                        yield from _shift(schedule, on_call, entry.get("start_time"), entry.get("end_time"), now)
        except (_Lacking, Misconfigured) as error:
            if seen:
                raise
            yield Gap("shift_based_schedules", f"the account shows no shift-based schedules: {error.message}")
        for row in self._rows("schedules", permission=READ_SCHEDULES):
            schedule = _schedule(row)
            if schedule.id in seen:
                continue
            yield schedule
            final = self._final("schedules", schedule.id, window)
            for entry in rows_of(final.get("rendered_schedule_entries"), f"shifts of schedule {schedule.id}"):
                # A user who was deleted stays in the schedule, and is not among the users: never active.
                if (user := entry.get("user")) is not None:
                    id_ = text_of(user, "id", f"a user of schedule {schedule.id}")
                    yield from _shift(schedule, id_, entry.get("start"), entry.get("end"), now)

    def _final(
        self, path: str, id_: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        """The schedule as PagerDuty computes it, overrides applied."""
        answer = self._api.call(
            "GET", f"{path}/{quote(id_, safe='')}", permission=READ_SCHEDULES, params=query, headers=headers or {}
        )
        place = f"schedule {id_}"
        final: Mapping[str, Any] = part(part(answer.body, "schedule", dict, place), "final_schedule", dict, place)
        return final

    def _tries(self) -> Iterator[tuple[str, Callable[[], object]]]:
        wanted = [("users", USERS)]
        wanted += [("teams", TEAMS)] if Kind.GROUP in self.kinds else []
        wanted += [("schedules", READ_SCHEDULES)] if Kind.SCHEDULE in self.kinds else []
        for path, permission in wanted:
            yield f"read {path}", partial(self._api.get, path, permission=permission, limit=1)

    # Pages

    def _rows(
        self, path: str, key: str = "", *, permission: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        for page in self._pages(path, key, permission=permission, headers=headers):
            yield from page

    def _pages(
        self, path: str, key: str = "", *, permission: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        offset = 0
        while True:
            if offset + PAGE > MOST:
                raise Incomplete(
                    f"{path}: PagerDuty shows the first {MOST} only, and there are more",
                    remedy="read users and teams from the identity provider that provisions them",
                )
            answer = self._api.call(
                "GET", path, permission=permission, params={"limit": PAGE, "offset": offset}, headers=headers or {}
            )
            rows = rows_of(part(answer.body, key or path, list, path), path)
            if path.startswith("v3/") and "more" not in answer.body:
                more, given = len(rows) >= PAGE, offset
            else:
                more, given = part(answer.body, "more", bool, path), part(answer.body, "offset", int, path)
            if given != offset:
                raise Incomplete(f"{path}: asked for the page at {offset}, PagerDuty gave the one at {given}")
            yield rows
            if not more:
                return
            if not rows:
                raise Incomplete(f"{path}: PagerDuty says that there are more after {offset}, and gives none")
            offset += len(rows)

    # The wire

    def _send(self, method: str, url: str, **request: Any) -> tuple[int, Mapping[str, str], bytes]:
        """One request through PagerDuty's client, whatever comes of it."""
        import pagerduty

        if self._opened is None:
            self._opened = self._open()
        self._pace.keep("rest")
        try:
            response = self._opened.request(method, url, **request)
        except pagerduty.HttpError as error:  # a 401, a redirect
            response = error.response  # type: ignore[assignment]
        except pagerduty.Error as error:
            if error.__cause__ is None:
                raise
            raise error.__cause__ from None  # what httpx2 raised
        told = [response.headers.get(f"ratelimit-{name}", "") for name in ("limit", "remaining", "reset")]
        if all(x.isdecimal() for x in told):
            limit, remaining, reset = map(int, told)
            ends = round((self.clock() + reset) / 10)  # the same all through a window of a minute, or nearly
            self._pace.count("rest", limit=limit, remaining=remaining, ends=ends, wait=reset)
        return response.status_code, response.headers, response.content

    def _open(self) -> pagerduty.RestApiV2Client:
        from pagerduty import RestApiV2Client, UrlError

        token = self.options.token.value
        check_sendable(token, f"token: {self.options.token.place}")
        style = "bearer" if token.startswith(("pdus+", "pdeu+")) else "token"
        try:
            client = RestApiV2Client(token, auth_type=style, base_url=self._base, **client_settings(self.options))
        except UrlError as error:
            raise Misconfigured("endpoint: PagerDuty's client speaks https only", remedy="use https") from error
        client.timeout = self.options.timeout  # type: ignore[assignment]  # it says int, and hands it to httpx2
        client.max_network_attempts = 0  # retries are ours
        client.retry, client.max_http_attempts = {429: 1}, -1  # zero means without end
        client.log = logging.getLogger(f"{__name__}.client")
        client.log.disabled = True  # our errors say the same, and better
        return client


def _user(row: Mapping[str, Any]) -> Principal:
    id_ = text_of(row, "id", "a user")
    what = f"user {id_}"
    attributes = attributes_of(row, but=_BOILERPLATE)
    return Principal(Kind.USER, id_, text_of(row, "name", what), text_of(row, "email", what), attributes=attributes)


def _schedule(row: Mapping[str, Any]) -> Principal:
    id_ = text_of(row, "id", "a schedule")
    name = text_of(row, "name" if row.get("name") else "summary", f"schedule {id_}")
    return Principal(Kind.SCHEDULE, id_, name, attributes=attributes_of(row, but=_BOILERPLATE))


def _shift(schedule: Principal, user: str, start: Any, end: Any, now: float) -> Iterator[Shift]:
    what = f"a shift of schedule {schedule.id}"
    begins, ends = moment(start, what), moment(end, what)
    if touches(begins, ends, now):
        yield Shift(schedule.ref, Ref(Kind.USER, user), begins, ends)


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until PagerDuty serves again (https://developer.pagerduty.com/docs/rest-api-rate-limits)."""
    told = headers.get("ratelimit-reset", "")
    return float(told) if told.isdecimal() else retry_after(headers)


def _meant(place: str, status: int, sentence: str) -> ConnectorError | None:
    if status == 402:
        return _Lacking(f"{place}: the account's plan lacks this{f': {sentence}' if sentence else ''}")
    return gone_meanwhile(place, status, "/schedules/")


def _told(document: Any) -> str:
    """PagerDuty's own words: {"error": {"code": 2010, "message": "Access Denied", "errors": ["…"]}}."""
    error = document["error"]
    if not isinstance(error, dict):
        return str(error)
    more = error.get("errors")
    return ": ".join([str(error["message"]), *map(str, more if isinstance(more, list) else [])])

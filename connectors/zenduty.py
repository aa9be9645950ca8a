"""Users, teams and on-call schedules of a Zenduty (Xurrent IMR) account.

API reference: https://apidocs.zenduty.com (Account Member, Teams, Schedules). It tells the layers and overrides of a
schedule, and who is on call now for an escalation policy, but not who will be on call in a schedule. That is computed
here by the rules of https://zenduty.com/docs/schedules; where those leave a doubt, nobody is on call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import Field

from connectors.answers import attributes_of, gone_meanwhile, plain, rows_of, text_of
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, Unauthenticated
from connectors.http import Api, part
from connectors.options import HttpOptions, Secret
from connectors.paging import Pages
from connectors.shifts import FOREVER, OnCallSystem, moment, shifts, touches
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Ref

NO_RESTRICTION, DAILY, WEEKLY = 0, 1, 2
SHORTEST = 60
"""Seconds. No shift is shorter."""
COMPUTED = Gap(
    "schedules_computed",
    "Zenduty's API does not tell who will be on call: that is computed from each schedule's layers and overrides",
    "compare a schedule's owners with Zenduty's page once, and after a change of its layers",
)
DAYLIGHT_SAVING = Gap(
    "daylight_saving",
    "the API does not tell whether a schedule's hand-overs move with daylight saving: for the hour in doubt nobody is "
    "on call",
    "start the layer's rotation anew after the clocks change",
)
OVERRIDES = Gap(
    "overrides_of_several_layers",
    "the API does not tell which of a schedule's layers an override is for: while it lasts only its user is on call",
    "keep one layer in a schedule, or one schedule for each layer",
)

Span = tuple[float, float]


class ZendutyOptions(HttpOptions):
    """Options of the `zenduty` connector."""

    token: Secret = Field(description="API key of an account's owner or administrator.")


class Zenduty(OnCallSystem):
    """Reads one Zenduty account."""

    Options = ZendutyOptions

    def __init__(self, options: ZendutyOptions) -> None:
        self._api = Api(
            options,
            options.endpoint or "https://www.zenduty.com",
            headers={"Authorization": f"Token {options.token.value}"},
            meant=_meant,
        )

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def _directory(self) -> Iterator[Record]:
        for row in self._rows("api/account/members/"):
            yield _user(row)
        if Kind.GROUP in self.kinds:
            for row in self._rows("api/account/teams/"):
                id_ = text_of(row, "unique_id", "a team")
                team = Principal(Kind.GROUP, id_, text_of(row, "name", f"team {id_}"))
                yield team
                what = f"a member of team {id_}"
                members = rows_of(row.get("members"), f"members of team {id_}")
                users = [part(member, "user", dict, what) for member in members]
                yield Members(team.ref, tuple(Ref(Kind.USER, text_of(user, "username", what)) for user in users))

    def _schedules(self) -> Iterator[Record]:
        now = self.clock()
        yield COMPUTED
        for team in self._rows("api/account/teams/"):
            id_ = text_of(team, "unique_id", "a team")
            for row in self._rows(f"api/account/teams/{quote(id_, safe='')}/schedules/"):
                schedule = _schedule(row, text_of(team, "name", f"team {id_}"))
                yield schedule
                for record in _on_call(row, f"schedule {schedule.id}", now):
                    if isinstance(record, Gap):
                        yield record
                    else:
                        user, spans = record
                        yield from shifts(schedule.ref, Ref(Kind.USER, user), spans, now)

    def _rows(self, path: str) -> Iterator[dict[str, Any]]:
        pages = Pages(path)
        link = path
        seen = 0
        while True:
            body = self._api.get(link).body
            if isinstance(body, list):  # as the reference has it
                yield from rows_of(body, path)
                return
            rows = rows_of(part(body, "results", list, path), path)  # as some accounts are answered
            seen += len(rows)
            yield from rows
            if body.get("next") is None:
                told = body.get("count")
                if isinstance(told, int) and seen < told:
                    raise Incomplete(f"{path}: {seen} of {told}, and no further page")
                return
            link = pages.turn(text_of(body, "next", path))

    def _tries(self) -> Iterator[tuple[str, Callable[[], object]]]:
        yield "read users", partial(self._api.get, "api/account/members/")
        if self.kinds & {Kind.GROUP, Kind.SCHEDULE}:
            yield "read teams", partial(self._api.get, "api/account/teams/")
        if Kind.SCHEDULE in self.kinds:
            yield "read schedules", self._try_schedules

    def _try_schedules(self) -> None:
        for team in self._rows("api/account/teams/"):
            id_ = text_of(team, "unique_id", "a team")
            self._api.get(f"api/account/teams/{quote(id_, safe='')}/schedules/")
            return


def _user(row: Mapping[str, Any]) -> Principal:
    user = part(row, "user", dict, "an account member")
    id_ = text_of(user, "username", "a user")  # made by Zenduty; never changes
    name = " ".join(filter(None, ((plain(user.get(key)) or "").strip() for key in ("first_name", "last_name"))))
    email = text_of(user, "email", f"user {id_}")
    # `is_verified` is false of owners, too: it tells nothing of who can act.
    kept = {key: row[key] for key in ("time_zone", "role") if row.get(key) is not None}
    return Principal(Kind.USER, id_, name or email, email, attributes=attributes_of(kept))


def _schedule(row: Mapping[str, Any], team: str) -> Principal:
    id_ = text_of(row, "unique_id", "a schedule")
    attributes = attributes_of(
        {**row, "team": team}, but=frozenset({"name", "unique_id", "layers", "overrides", "description"})
    )
    return Principal(Kind.SCHEDULE, id_, text_of(row, "name", f"schedule {id_}"), attributes=attributes)


# Who is on call


def _on_call(row: Mapping[str, Any], what: str, now: float) -> Iterator[Gap | tuple[str, list[Span]]]:
    """The users of a schedule and when each is on call, around the time that shifts are read for."""
    until = now + SHIFT_HORIZON
    name = text_of(row, "time_zone", what)
    try:
        zone = ZoneInfo(name)
    except (ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise BadData(f"{what}: no time zone: {name!r}") from error
    except KeyError as error:
        raise BadData(f"{what}: this host knows no time zone {name!r}", remedy="install tzdata") from error
    overrides = [
        (
            text_of(it, "user", f"an override of {what}"),
            moment(it.get("start_time"), what),
            moment(it.get("end_time"), what),
        )
        for it in rows_of(row.get("overrides"), f"overrides of {what}")
    ]
    overrides = [it for it in overrides if touches(it[1], it[2], now)]
    layers = [it for it in rows_of(row.get("layers"), f"layers of {what}") if it.get("is_active") is not False]
    if overrides and len(layers) > 1:
        yield OVERRIDES
    for layer in layers:
        turns, doubtful = _turns(layer, zone, what, now, until)
        if doubtful:
            yield DAYLIGHT_SAVING
        open_ = _open(layer, zone, what, now, until)
        for user, span in turns:
            left = [span] if open_ is None else _both([span], open_)
            yield user, _without(left, [(start, end) for _, start, end in overrides])
    for user, start, end in overrides:
        yield user, [(start, end)]


def _turns(
    layer: Mapping[str, Any], zone: ZoneInfo, what: str, now: float, until: float
) -> tuple[list[tuple[str, Span]], bool]:
    """Whose turn it is in a layer, and when; and whether daylight saving leaves a doubt.

    Hand-overs are at the same time of the local clock, or, by a setting that the API does not tell, a fixed number of
    seconds apart. Each turn is what both have in common.
    """
    length = part(layer, "shift_length", int, f"a layer of {what}")
    if length < SHORTEST:
        raise BadData(f"{what}: a layer with shifts of {length} s")
    members = rows_of(layer.get("users"), f"users of a layer of {what}")
    try:
        members.sort(key=lambda member: member["position"])
    except (KeyError, TypeError) as error:
        raise BadData(f"{what}: users of a layer without a position") from error
    users = [text_of(member, "user", f"a layer of {what}") for member in members]
    begins = moment(layer.get("rotation_start_time"), what)
    never = layer.get("rotation_end_time") is None
    ends = FOREVER if never else moment(layer.get("rotation_end_time"), what)
    if not users or ends <= now or begins >= until:
        return [], False
    if len(users) == 1:
        return [(users[0], (begins, ends))], False
    local = datetime.fromtimestamp(begins, zone).replace(tzinfo=None)

    def by_the_clock(n: int) -> float:
        return (local + timedelta(seconds=n * length)).replace(tzinfo=zone).timestamp()

    turns, doubtful = [], False
    for n in count(max(0, int((now - begins) // length) - 1)):
        elapsed = begins + n * length
        if elapsed >= until:
            break
        span = max(by_the_clock(n), elapsed), min(by_the_clock(n + 1), elapsed + length, ends)
        if touches(*span, now):
            turns.append((users[n % len(users)], span))
        doubtful = doubtful or (by_the_clock(n) != elapsed and touches(elapsed, elapsed + length, now))
    return turns, doubtful


def _open(layer: Mapping[str, Any], zone: ZoneInfo, what: str, now: float, until: float) -> list[Span] | None:
    """When a layer's restrictions let it be on call; None for always."""
    kind = part(layer, "restriction_type", int, f"a layer of {what}")
    if kind == NO_RESTRICTION:
        return None
    if kind not in {DAILY, WEEKLY}:
        raise BadData(f"{what}: a restriction of type {kind}")
    found = []
    for row in rows_of(layer.get("restrictions"), f"restrictions of {what}"):
        duration = timedelta(seconds=part(row, "duration", int, f"a restriction of {what}"))
        weekday = part(row, "start_day_of_week", int, f"a restriction of {what}") if kind == WEEKLY else 0
        try:
            opens = time_of_day.fromisoformat(text_of(row, "start_time_of_day", f"a restriction of {what}"))
        except ValueError as error:
            raise BadData(f"{what}: a restriction that starts at no time of day") from error
        day = datetime.fromtimestamp(now, zone).date() - duration - timedelta(days=1)
        last = datetime.fromtimestamp(until, UTC).date() + timedelta(days=1)
        while day <= last:
            if weekday in {0, day.isoweekday() % 7 + 1}:  # 1 is Sunday, 7 Saturday, 0 each day
                start = datetime.combine(day, opens)
                found.append((_at(start, zone), _at(start + duration, zone)))
            day += timedelta(days=1)
    return _union(found)


def _at(local: datetime, zone: ZoneInfo) -> float:
    return local.replace(tzinfo=zone).timestamp()


def _union(spans: Iterable[Span]) -> list[Span]:
    """Without overlaps, in order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _both(some: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    others = list(others)
    pairs = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return [(start, end) for start, end in pairs if start < end]


def _without(some: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    left = list(some)
    for start, end in others:
        left = [
            (a, b) for span in left for a, b in ((span[0], min(span[1], start)), (max(span[0], end), span[1])) if a < b
        ]
    return left


def _meant(place: str, status: int, sentence: str) -> ConnectorError | None:
    """A token that is wrong is a 403, like a right that is missing; only the sentence tells."""
    if status == 403 and ("token" in sentence.lower() or "credentials" in sentence.lower()):
        return Unauthenticated(
            f"{place}: the token was refused: 403 ({sentence})", remedy="renew it: Account, API Keys"
        )
    if status == 403:
        return Forbidden(
            f"{place}: the token may not: 403{f' ({sentence})' if sentence else ''}",
            remedy="use the API key of an owner or administrator of the account",
        )
    return gone_meanwhile(place, status, "/schedules/")

"""An Opsgenie on loopback, over TLS: the part of its API that reads users, teams, schedules and their timelines.

Built from Opsgenie's published description (github.com/opsgenie/opsgenie-oas: paths and definitions of user, team,
teamMember, schedule, common) and its pages docs.opsgenie.com: "User API", "Team API", "Schedule API", "Pagination"
(absolute links in `paging`; 100 a page, 20,000 in all), "Rate Limiting" (429, X-RateLimit-*), "Response" (message, took,
requestId; 403 with code 40301).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from tests.servers.oncall import OnCallServer, Page, Refusal, whole


def problem(status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> Refusal:
    """An error as Opsgenie words it."""
    return Refusal(status, {"message": message, "took": 0.001, "requestId": "rId", **more}, headers)


class OpsgenieServer(OnCallServer):
    """The account."""

    def __init__(self, *, page: int = 100) -> None:
        super().__init__()
        self.api_key = "eb243592-faa2-4ba2-a551q-SECRET"
        self.page = page
        self.configuration_access = True
        self.timeline_days: int | None = None
        """How long a timeline is; None for as long as asked."""
        self.users: list[dict[str, Any]] = []
        self.teams: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}

    # ── content ──

    def add_user(self, id_: str, username: str, name: str, *, blocked: bool = False, **more: Any) -> None:
        self.users.append(
            {
                "blocked": blocked, "verified": False, "id": id_, "username": username, "fullName": name,
                "role": {"id": "User", "name": "User"}, "timeZone": "Europe/Kirov", "locale": "en_US",
                "userAddress": {"country": "", "state": "", "city": "", "line": "", "zipCode": ""},
                "createdAt": "2017-05-12T08:34:30.283Z", **more,
            }
        )  # fmt: skip

    def add_team(self, id_: str, name: str, *members: str) -> None:
        names = {user["id"]: user["username"] for user in self.users}
        rows = [{"user": {"id": m, "username": names.get(m, "…")}, "role": "user"} for m in members]
        self.teams[id_] = {"id": id_, "name": name, "description": "", "members": rows}

    def add_schedule(self, id_: str, name: str, *rotations: dict[str, Any], enabled: bool = True) -> None:
        self.schedules[id_] = {"id": id_, "name": name, "enabled": enabled, "rotations": list(rotations)}

    # ── the API ──

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if headers.get("authorization") != f"GenieKey {self.api_key}":
            raise problem(403, "Could not authenticate")
        if not self.configuration_access:
            raise problem(403, "You are not authorized to reach this resource with this API key", code=40301)
        match path:
            case ["v2", "users"]:
                return self._users(query)
            case ["v2", "teams"]:
                rows = [{k: v for k, v in team.items() if k != "members"} for team in self.teams.values()]
                return self._data(rows, "teams")
            case ["v2", "teams", id_] if id_ in self.teams and query.get("identifierType", ["id"]) == ["id"]:
                return self._data(self.teams[id_], "team")
            case ["v2", "schedules"]:
                rows = [
                    {
                        "id": s["id"], "name": s["name"], "description": "", "timezone": "Europe/Kirov",
                        "enabled": s["enabled"], "ownerTeam": {"id": "t", "name": "Owning Team"}, "rotations": [],
                    }
                    for s in self.schedules.values()
                ]  # fmt: skip
                return self._data(rows, "schedules")
            case ["v2", "schedules", id_, "timeline"] if id_ in self.schedules:
                return self._timeline(self.schedules[id_], query)
        raise problem(404, "Not found")

    def _users(self, query: dict[str, list[str]]) -> Page:
        limit, offset = whole(query, "limit", 20), whole(query, "offset", 0)
        if limit > 100 or limit + offset > 20_000:
            raise problem(422, "Sum of offset and limit should be lower than 20000")
        size = min(limit, self.page)
        rows = sorted(self.users, key=lambda user: user["username"])[offset : offset + size]

        def to(position: int) -> str:
            told = {k: v[0] for k, v in query.items()} | {"limit": limit, "offset": position}
            return self.link(f"/v2/users?{urlencode(told)}")

        paging = {"first": to(0)}
        if offset + size < len(self.users):
            paging["next"] = to(offset + size)
        document = {"totalCount": len(self.users), "data": rows, "paging": paging, "took": 0.2, "requestId": "rId"}
        again = {**document, "paging": {**paging, "next": to(offset)}}
        return Page(document, "users", offset // size + 1, again)

    def _data(self, data: Any, name: str) -> Page:
        return Page({"data": data, "took": 0.2, "requestId": "rId"}, name)

    def _timeline(self, schedule: dict[str, Any], query: dict[str, list[str]]) -> Page:
        assert query["intervalUnit"] == ["days"]
        begins = datetime.fromisoformat(query["date"][0]).astimezone(UTC).replace(hour=0, minute=0)
        ends = begins + timedelta(days=self.timeline_days or int(query["interval"][0]))

        def inside(period: dict[str, Any]) -> bool:
            start, end = (datetime.fromisoformat(period[key]) for key in ("startDate", "endDate"))
            return end > begins and start < ends

        rotations = [
            {**rotation, "periods": [p for p in rotation["periods"] if inside(p)]} for rotation in schedule["rotations"]
        ]
        parent = {key: schedule[key] for key in ("id", "name", "enabled")}
        timeline = {
            "_parent": parent,
            "startDate": begins.isoformat().replace("+00:00", "Z"),
            "endDate": ends.isoformat().replace("+00:00", "Z"),
            "finalTimeline": {"rotations": rotations},
        }
        return self._data(timeline, "timeline")


def rotation(name: str, *periods: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A rotation of a timeline."""
    return {"id": f"rotation-{name}", "name": name, "order": 1.0, "periods": list(periods), **more}


def period(start: str, end: str, kind: str, id_: str | None, **more: Any) -> dict[str, Any]:
    """A period of a rotation: `kind` is the recipient's."""
    recipient = {"type": kind, **({"id": id_, "name": "…"} if id_ else {})}
    return {"startDate": start, "endDate": end, "type": "default", "recipient": recipient, **more}

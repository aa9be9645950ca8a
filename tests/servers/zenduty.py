"""A Zenduty on loopback, over TLS: the part of its API that reads account members, teams and schedules.

Built from Zenduty's published API description (apidocs.zenduty.com, OpenAPI 1.1.0: "List all Account Member objects",
"List all Team objects", "List all Schedule objects" with its layers, restrictions and overrides; errors are
{"detail": "…"}) and its page "Rate Limits". Some accounts are answered in pages ({"count", "next", "previous",
"results"}): set `page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.servers.oncall import OnCallServer, Page, Refusal, whole


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as Zenduty words it."""
    return Refusal(status, {"detail": detail}, headers)


class ZendutyServer(OnCallServer):
    """The account."""

    def __init__(self, *, page: int | None = None) -> None:
        super().__init__()
        self.token = "1f0cd3b1a8-SECRET"
        self.page = page
        self.may_read_schedules = True
        self.members: list[dict[str, Any]] = []
        self.teams: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, list[dict[str, Any]]] = {}

    # ── content ──

    def add_user(self, username: str, first: str, last: str, email: str) -> None:
        user = {"username": username, "first_name": first, "last_name": last, "email": email}
        self.members.append(
            {
                "unique_id": f"96f437aa-ae86-46cc-a01a-{len(self.members):012}", "time_zone": "UTC", "user": user,
                "joining_date": "2022-07-08T10:28:36.804578Z", "role": 3, "is_verified": False,
            }
        )  # fmt: skip

    def add_team(self, id_: str, name: str, *users: str) -> None:
        known = {member["user"]["username"]: member["user"] for member in self.members}
        members = [
            {
                "unique_id": f"90a97f10-d290-4bd0-9f83-{n:012}", "team": id_, "user": known.get(u, {"username": u}),
                "joining_date": "2022-07-08T10:29:36.408864Z", "role": 1,
            }
            for n, u in enumerate(users)
        ]  # fmt: skip
        self.teams[id_] = {
            "unique_id": id_, "name": name, "account": "0713dc12-40b0-46ff-b0f9-c6b126399277",
            "creation_date": "2022-07-08", "members": members, "owner": "…", "roles": [],
        }  # fmt: skip
        self.schedules[id_] = []

    def add_schedule(
        self, team: str, id_: str, name: str, *layers: dict[str, Any], zone: str = "UTC", overrides: Any = ()
    ) -> None:
        self.schedules[team].append(
            {
                "name": name, "summary": "", "description": "", "time_zone": zone, "team": team, "layers": list(layers),
                "overrides": list(overrides), "unique_id": id_,
            }
        )  # fmt: skip

    # ── the API ──

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if headers.get("authorization") != f"Token {self.token}":
            raise problem(403, "Invalid token.")
        match path:
            case ["api", "account", "members"]:
                return self._list(path, "members", self.members, query)
            case ["api", "account", "teams"]:
                return self._list(path, "teams", list(self.teams.values()), query)
            case ["api", "account", "teams", team, "schedules"] if team in self.teams:
                if not self.may_read_schedules:
                    raise problem(403, "You do not have permission to perform this action.")
                return self._list(path, "schedules", self.schedules[team], query)
        raise problem(404, "Not found.")

    def _list(self, path: list[str], name: str, rows: list[dict[str, Any]], query: dict[str, list[str]]) -> Page:
        if self.page is None:
            return Page(rows, name)
        number = whole(query, "page", 1)
        part = rows[(number - 1) * self.page : number * self.page]

        def to(page: int) -> str:
            return self.link(f"/{'/'.join(path)}/?page={page}")

        following = to(number + 1) if number * self.page < len(rows) else None
        document = {"count": len(rows), "next": following, "previous": None, "results": part}
        return Page(document, name, number, {**document, "next": to(number)})


def layer(users: list[str], start: str, length: int, **more: Any) -> dict[str, Any]:
    """A layer of a schedule: who takes turns, from when, for how many seconds."""
    return {
        "shift_length": length, "restrictions": [], "name": "Layer", "rotation_start_time": start,
        "users": [{"user": u, "position": n, "unique_id": f"u{n}"} for n, u in enumerate(users, 1)][::-1],
        "rotation_end_time": None, "unique_id": "a5ec8d44", "last_edited": "2022-07-08T11:28:47.218341Z",
        "restriction_type": 0, "is_active": True, **more,
    }  # fmt: skip


def restriction(start: str, duration: int, day: int = 0) -> dict[str, Any]:
    """When a layer is on call: 0 is each day, 1 to 7 Sunday to Saturday."""
    return {"duration": duration, "start_day_of_week": day, "start_time_of_day": start, "unique_id": "35199b5e"}


def override(user: str, start: str, end: str) -> dict[str, Any]:
    """Somebody on call for a time."""
    return {"name": "Override", "user": user, "start_time": start, "end_time": end, "unique_id": "b4492ce7"}

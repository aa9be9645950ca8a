"""A Splunk On-Call (VictorOps) on loopback, over TLS: the part of its API that reads users, teams and their schedules.

Built from its published API description (portal.victorops.com/public/api-docs/victorops-api-v1.yaml, 0.0.3: Users,
Teams, On-call; definitions TeamSchedule, PolicySchedule, OnCallEntry, OnCallRoll, OnCallOverride; "401: Authentication
parameters missing", "403: Authentication failed or rate-limit reached", 60 requests a minute and call) and the answers
that the vendor's own client is tested with (github.com/victorops/go-victorops: /api-public/v2/user, on_call_test.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.servers.oncall import OnCallServer, Page, Refusal, whole


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as the API words it."""
    return Refusal(status, {"error": message}, headers)


class SplunkOnCallServer(OnCallServer):
    """The organization."""

    def __init__(self) -> None:
        super().__init__()
        self.api_id, self.api_key = "a1b2c3d4", "0123456789abcdefSECRET"
        self.users: list[dict[str, Any]] = []
        self.teams: dict[str, dict[str, Any]] = {}

    # ── content ──

    def add_user(self, username: str, first: str, last: str, email: str, **more: Any) -> None:
        self.users.append(
            {
                "firstName": first, "lastName": last, "displayName": f"{first} {last}".strip(), "username": username,
                "email": email, "createdAt": "2018-06-16T01:19:39Z", "passwordLastUpdated": "2018-07-16T22:48:01Z",
                "verified": False, "_selfUrl": f"/api-public/v1/user/{username}", **more,
            }
        )  # fmt: skip

    def add_team(self, slug: str, name: str, *members: str) -> None:
        self.teams[slug] = {"name": name, "members": list(members), "schedules": []}

    def add_policy(
        self, team: str, slug: str, name: str, *entries: dict[str, Any], overrides: list[dict[str, Any]] | None = None
    ) -> None:
        policy = {"policy": {"name": name, "slug": slug}, "schedule": list(entries), "overrides": overrides or []}
        self.teams[team]["schedules"].append(policy)

    # ── the API ──

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if "x-vo-api-id" not in headers or "x-vo-api-key" not in headers:
            raise problem(401, "Authentication parameters missing")
        if (headers["x-vo-api-id"], headers["x-vo-api-key"]) != (self.api_id, self.api_key):
            raise problem(403, "Authentication failed")
        match path:
            case ["api-public", "v2", "user"]:
                return Page({"users": self.users, "_selfUrl": "/api-public/v2/user"}, "users")
            case ["api-public", "v1", "team"]:
                return Page(
                    [
                        {
                            "name": team["name"], "slug": slug, "memberCount": len(team["members"]), "version": 3,
                            "isDefaultTeam": False, "description": "", "_selfUrl": f"/api-public/v1/team/{slug}",
                            "_membersUrl": f"/api-public/v1/team/{slug}/members",
                        }
                        for slug, team in self.teams.items()
                    ],
                    "teams",
                )  # fmt: skip
            case ["api-public", "v1", "team", slug, "members"] if slug in self.teams:
                rows = [
                    {"username": m, "firstName": "…", "lastName": "…", "verified": False, "version": 1}
                    for m in self.teams[slug]["members"]
                ]
                number = list(self.teams).index(slug) + 1
                return Page({"members": rows, "_selfUrl": f"/api-public/v1/team/{slug}/members"}, "members", number)
            case ["api-public", "v2", "team", slug, "oncall", "schedule"] if slug in self.teams:
                if whole(query, "daysForward", 14) > 30 or whole(query, "step", 0) > 3:
                    raise problem(400, "Problem with the request arguments")
                team = self.teams[slug]
                document = {"team": {"name": team["name"], "slug": slug}, "schedules": team["schedules"]}
                return Page(document, "schedules", list(self.teams).index(slug) + 1)
        raise problem(404, "Not found")


def entry(kind: str, *rolls: tuple[str | None, str, str], user: str | None = None, **more: Any) -> dict[str, Any]:
    """One target of a policy's first step, with the turns of its rotation."""
    return {
        "onCallType": kind,
        **({"onCallUser": {"username": user}} if user else {}),
        "rotationName": "Primary",
        "shiftName": "primary",
        "rolls": [
            {"start": start, "end": end, **({"onCallUser": {"username": who}} if who else {}), "isRoll": True}
            for who, start, end in rolls
        ],
        **more,
    }


def override(orig: str | None, over: str, start: str, end: str) -> dict[str, Any]:
    """Somebody on call in the place of another."""
    return {
        **({"origOnCallUser": {"username": orig}} if orig else {}),
        "overrideOnCallUser": {"username": over},
        "start": start,
        "end": end,
    }

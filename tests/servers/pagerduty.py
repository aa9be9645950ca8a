"""A PagerDuty on loopback, over TLS: the part of its REST API v2 that reads users, teams and schedules.

Built from PagerDuty's published API description (github.com/PagerDuty/api-schema, reference/REST/openapiv3.json:
listUsers, listTeams, listSchedules, getSchedule; v3: "List schedules", "Get a schedule" with `include[]=final_schedule`,
as its own go-pagerduty client reads them), and its pages "Pagination" (limit, offset, more; 10,000 entries at most),
"Errors" ({"error": {"code", "message", "errors"}}; 402 for what the plan lacks) and "REST API Rate Limits" (ratelimit-*).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.servers.oncall import OnCallServer, Page, Refusal, whole


def problem(status: int, code: int, message: str, *errors: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as PagerDuty words it."""
    return Refusal(
        status, {"error": {"code": code, "message": message, **({"errors": errors} if errors else {})}}, headers
    )


class PagerDutyServer(OnCallServer):
    """The account."""

    def __init__(self, *, page: int = 100) -> None:
        super().__init__()
        self.token = "y_NbAkKc66ryYTWUXYEu-SECRET"
        self.page = page
        """The server's own limit of entries a page; PagerDuty's is 100."""
        self.scopes = {"users.read", "teams.read", "schedules.read"}
        self.has_teams = self.has_shift_based = True
        self.limit, self.used = 960, 0
        self.users: list[dict[str, Any]] = []
        self.teams: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.shift_based: list[dict[str, Any]] = []

    # ── content ──

    def add_user(self, id_: str, name: str, email: str, *teams: str, **more: Any) -> None:
        self.users.append(
            {
                "id": id_, "type": "user", "summary": name, "self": f"https://api.pagerduty.com/users/{id_}",
                "html_url": f"https://acme.pagerduty.com/users/{id_}", "name": name, "email": email,
                "time_zone": "Europe/Berlin", "color": "green", "role": "user", "avatar_url": "https://x.example/a.png",
                "description": None, "invitation_sent": False, "contact_methods": [], "notification_rules": [],
                "job_title": None, "teams": [reference("team", team) for team in teams], **more,
            }
        )  # fmt: skip

    def add_team(self, id_: str, name: str) -> None:
        self.teams.append(
            {
                **reference("team", id_, name),
                "type": "team",
                "name": name,
                "description": None,
                "default_role": "manager",
            }
        )

    def add_schedule(self, id_: str, name: str, *entries: tuple[dict[str, Any] | None, str, str]) -> None:
        """Add a schedule by layers; an entry is a user reference and its time."""
        self.schedules.append(
            {
                **reference("schedule", id_, name), "type": "schedule", "name": name, "time_zone": "UTC",
                "description": "", "escalation_policies": [], "users": [], "teams": [],
                "entries": [{"start": start, "end": end, "user": user} for user, start, end in entries],
            }
        )  # fmt: skip

    def add_shift_based(self, id_: str, name: str, *entries: tuple[str | None, str, str]) -> None:
        """Add a schedule by shifts (v3); None for a slot that is left empty."""
        self.shift_based.append({"id": id_, "name": name, "entries": entries})

    # ── the API ──

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if headers.get("authorization") not in {f"Token token={self.token}", f"Bearer {self.token}"}:
            raise Refusal(401, {"error": {"message": "Unauthorized", "code": 2006}})
        self.used += 1
        told = {
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(max(0, self.limit - self.used)),
            "ratelimit-reset": "42",
        }
        if self.used > self.limit:
            raise problem(429, 2020, "Rate Limit Exceeded", headers=told)
        page = self._get(path, query, headers)
        page.headers = told
        return page

    def _get(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        match path:
            case ["users"]:
                self._need("users.read")
                return self._page("users", "users", self.users, query)
            case ["teams"]:
                self._need("teams.read")
                if not self.has_teams:
                    raise problem(402, 2014, "Payment Required", "Account does not have the abilities: teams")
                return self._page("teams", "teams", self.teams, query)
            case ["schedules"]:
                self._need("schedules.read")
                rows = [{k: v for k, v in s.items() if k != "entries"} for s in self.schedules]
                return self._page("schedules", "schedules", rows, query)
            case ["schedules", id_]:
                self._need("schedules.read")
                return self._schedule(id_, query)
            case ["v3", "schedules", *rest]:
                if headers.get("x-early-access") != "flexible-schedules-early-access":
                    raise problem(400, 2001, "Invalid Input Provided", "X-EARLY-ACCESS header required")
                if not self.has_shift_based:
                    raise problem(404, 2100, "Not Found")
                self._need("schedules.read")
                if not rest:
                    rows = [reference("schedule", s["id"], s["name"]) for s in self.shift_based]
                    return self._page("v3", "schedules", rows, query)
                return self._shift_based(rest[0], query)
        raise problem(404, 2100, "Not Found")

    def _need(self, scope: str) -> None:
        if scope not in self.scopes:
            raise problem(403, 2010, "Access Denied", f"Token lacks the scope {scope}")

    def _page(self, name: str, key: str, rows: list[dict[str, Any]], query: dict[str, list[str]]) -> Page:
        limit, offset = whole(query, "limit", 25), whole(query, "offset", 0)
        if limit + offset > 10_000:
            raise problem(400, 2001, "Invalid Input Provided", "Offset plus limit must be 10000 at most.")
        size = min(limit, self.page)
        found = {key: rows[offset : offset + size], "limit": size, "offset": offset, "total": None}
        found["more"] = offset + size < len(rows)
        again = {**found, "offset": max(0, offset - size), "more": True}
        if offset == 0:
            again = {**found, "more": True, "offset": size}
        return Page(found, name, offset // size + 1, again)

    def _schedule(self, id_: str, query: dict[str, list[str]]) -> Page:
        found = [s for s in self.schedules if s["id"] == id_]
        if not found:
            raise problem(404, 2100, "Not Found")
        assert query["time_zone"] == ["UTC"] and query["overflow"] == ["true"]
        entries = [
            {**e, "id": f"Q{n}"} for n, e in enumerate(found[0]["entries"]) if _inside(e["start"], e["end"], query)
        ]
        final = {"name": "Final Schedule", "rendered_schedule_entries": entries, "rendered_coverage_percentage": 50.0}
        return Page(
            {"schedule": {k: v for k, v in found[0].items() if k != "entries"} | {"final_schedule": final}}, "schedule"
        )

    def _shift_based(self, id_: str, query: dict[str, list[str]]) -> Page:
        found = [s for s in self.shift_based if s["id"] == id_]
        if not found:
            raise problem(404, 2100, "Not Found")
        document: dict[str, Any] = {
            **reference("schedule", id_, found[0]["name"]),
            "name": found[0]["name"],
            "rotations": [],
        }
        if query.get("include[]") == ["final_schedule"]:
            document["final_schedule"] = {
                "type": "final_schedule",
                "rendered_coverage_percentage": 50.0,
                "computed_shift_assignments": [
                    {
                        "type": "computed_shift_assignment",
                        "start_time": start,
                        "end_time": end,
                        "member": {"type": "user_member", "user_id": user} if user else {"type": "empty_member"},
                        "source": {"type": "rotation_source", "rotation_id": "PROT"},
                    }
                    for user, start, end in found[0]["entries"]
                    if _inside(start, end, query)
                ],
            }
        return Page({"schedule": document}, "v3 schedule")


def _inside(start: str, end: str, query: dict[str, list[str]]) -> bool:
    begins, ends, since, until = map(datetime.fromisoformat, (start, end, query["since"][0], query["until"][0]))
    return ends > since and begins < until


def reference(kind: str, id_: str, summary: str = "…", **more: Any) -> dict[str, Any]:
    """How PagerDuty names one thing in another."""
    return {
        "id": id_,
        "type": f"{kind}_reference",
        "summary": summary,
        "self": f"https://api.pagerduty.com/{kind}s/{id_}",
        "html_url": f"https://acme.pagerduty.com/{kind}s/{id_}",
        **more,
    }

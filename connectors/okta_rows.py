"""What the rows of an Okta org's lists mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from connectors.answers import attributes_of, plain
from connectors.errors import BadData
from connectors.values import Kind, Principal

CAN_ACT = frozenset({"ACTIVE", "LOCKED_OUT", "PASSWORD_EXPIRED", "RECOVERY"})
"""Statuses of users whose account works, or will once they have signed in again or changed their password.

Not so: STAGED and PROVISIONED (not activated yet), SUSPENDED, DEPROVISIONED, and whatever Okta may add.
https://help.okta.com/en-us/Content/Topics/users-groups-profiles/usgp-end-user-states.htm
"""

NAMES = ("login", "email", "employeeNumber")
"""What a profile's managerId may hold in place of an Okta id."""
_FINDABLE = re.compile(r'[^"\\\x00-\x1f\x7f\ud800-\udfff]{1,200}')
_OKTA_ID = re.compile(r"00u[0-9A-Za-z]{17}")


class Rows:
    """Makes records of rows. BadData for one that lacks what every row has."""

    def __init__(self, host: str) -> None:
        self._host = host

    def text(self, row: Mapping[str, Any], key: str, what: str) -> str:
        """What every row has as text; `what` is said in the error."""
        if not isinstance(value := row.get(key), str) or not value:
            raise BadData(f'{self._host}: {what} has no "{key}"')
        return value

    def profile(self, row: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """The profile of a user or a group."""
        if not isinstance(profile := row.get("profile"), dict):
            raise BadData(f"{self._host}: {what} has no profile")
        return profile

    def when(self, row: Mapping[str, Any], key: str) -> float:
        """A time in seconds since the epoch."""
        told = self.text(row, key, f"{row.get('id')}")
        try:
            return datetime.fromisoformat(told).timestamp()
        except ValueError as error:
            raise BadData(f'{self._host}: {row.get("id")}: "{key}" is no time') from error

    def user(self, row: Mapping[str, Any]) -> tuple[Principal, str]:
        """The user, and the name of the manager where the profile does not tell an id."""
        id_ = self.text(row, "id", "a user")
        profile = self.profile(row, f"user {id_}")
        login, email = plain(profile.get("login")), plain(profile.get("email"))
        names = (plain(profile.get("firstName")), plain(profile.get("lastName")))
        manager = plain(profile.get("managerId")) or ""
        user = Principal(
            Kind.USER,
            id_,
            plain(profile.get("displayName")) or " ".join(filter(None, names)) or login or "",
            email or login,
            self.text(row, "status", f"user {id_}") in CAN_ACT,
            manager if _OKTA_ID.fullmatch(manager) else None,
            # Not secondEmail: users set it themselves, so it could claim what is tagged with another's address.
            (login,) if login and email and login != email else (),
            attributes_of(profile),
        )
        return user, manager if user.manager is None and _FINDABLE.fullmatch(manager) else ""

    def names_of(self, row: Mapping[str, Any]) -> set[str]:
        """What a user's reports may name the user by."""
        profile = self.profile(row, "a user")
        names = (plain(profile.get(key)) for key in NAMES)
        return {name for name in names if name and _FINDABLE.fullmatch(name)}

    def group(self, row: Mapping[str, Any]) -> Principal:
        """The group."""
        id_ = self.text(row, "id", "a group")
        profile = self.profile(row, f"group {id_}")
        return Principal(Kind.GROUP, id_, plain(profile.get("name")) or "", attributes=attributes_of(profile))

    def targets(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What an event of the System Log happened to: `type` and `id` of each."""
        targets = event.get("target")
        if not isinstance(targets, list) or not all(isinstance(target, dict) for target in targets):
            raise BadData(f"{self._host}: a deletion in the System Log names no target")
        return targets

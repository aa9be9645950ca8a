"""An integration's rules as the database keeps them: what the poller resolves by, and the server explains by."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from connectors.values import Kind
from daemon.rule import Rule


@dataclass(frozen=True, slots=True)
class Rules:
    """What an integration's configuration says of owners."""

    inherit: bool
    resource_owner: tuple[Rule, ...]
    integration_owner: tuple[tuple[Rule, tuple[str, ...]], ...]

    def to_json(self) -> str:
        """A canonical text: equal rules give equal texts."""
        return orjson.dumps(
            {
                "inherit": self.inherit,
                "resource_owner": [
                    {
                        "keys": r.keys,
                        "directory": r.directory,
                        "attribute": r.attribute,
                        "split": r.split,
                        "allowed": r.allowed,
                    }
                    for r in self.resource_owner
                ],
                "integration_owner": [
                    {"directory": r.directory, "attribute": r.attribute, "values": values}
                    for r, values in self.integration_owner
                ],
            }
        ).decode()

    @staticmethod
    def from_json(text: str) -> Rules:
        """The inverse of `to_json`."""
        told = orjson.loads(text)
        return Rules(
            told["inherit"],
            tuple(
                Rule(
                    tuple(r["keys"]),
                    r["directory"],
                    r["attribute"],
                    r["split"],
                    None if r["allowed"] is None else tuple(r["allowed"]),
                )
                for r in told["resource_owner"]
            ),
            tuple((Rule((), r["directory"], r["attribute"]), tuple(r["values"])) for r in told["integration_owner"]),
        )

    def used(self) -> set[tuple[str, Kind, str]]:
        """Each (directory, kind, field) that values are matched against."""
        every = [*self.resource_owner, *(r for r, _ in self.integration_owner)]
        return {(r.directory, r.kind, r.field) for r in every}

    def kinds(self) -> set[tuple[str, Kind]]:
        """Each (directory, kind) whose principals own."""
        return {(directory, kind) for directory, kind, _ in self.used()}

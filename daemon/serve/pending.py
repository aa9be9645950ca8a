"""`GET /v1/pending`: changes of tags that wait."""

from __future__ import annotations

from typing import Any

import orjson

from daemon.answers import rfc3339
from daemon.serve import parameters as given
from daemon.store.reader import Reader


def pending(reader: Reader, query: bytes) -> dict[str, Any]:
    """A page of them, by the order in which the resources became known."""
    asked = given.query(query, {"integration", "cursor", "limit"})
    most = given.limit(asked)
    (after,) = given.position_of("p", asked["cursor"], int) if "cursor" in asked else (0,)
    found = reader.pending(integration=asked.get("integration"), after=after, limit=most + 1)
    cursor = given.cursor_of("p", found[most - 1]["id"]) if len(found) > most else None
    return {"pending": [_told(row) for row in found[:most]], "next": cursor}


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "resource": {"id": row["resource"], "integration": row["integration"]},
        "since": rfc3339(row["since"]),
        "until": rfc3339(row["until"]),
        "before": {"tag": row["old_tag"], **orjson.loads(f"{{{row['before']}}}")},
        "after": {"tag": row["new_tag"], **orjson.loads(f"{{{row['after']}}}")},
    }

"""Rigs of the `file` connectors: files in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.errors import BadData
from connectors.values import Kind, Principal, Ref, Resource, Shift
from tests.connectors.rig import Fault, Rig, key_of, member_key, shift_key

RESOURCES = [
    Resource("a-1", "vm", "alpha", None, {"owner": "team-a"}),
    Resource("b-2", "", "", "a-1", {}),
    Resource("資源-3", "база", "ключ", None, {"владелец": "команда", "empty": ""}),
]


class _FileRig(Rig):
    kind = "file"
    faults = {Fault.CUT_BODY: BadData, Fault.EMPTY_BODY: BadData}
    suffix = ".json"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self.path = Path(folder, f"data{self.suffix}")
            self.path.write_text(self.text())
            yield

    def text(self) -> str:
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        return {"path": str(self.path)}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        whole = self.path.read_bytes()
        self.path.write_bytes(whole[: len(whole) * 2 // 3] if fault is Fault.CUT_BODY else b"")
        try:
            yield
        finally:
            self.path.write_bytes(whole)


class JsonResources(_FileRig):
    role = "integration"
    name = "json"

    def text(self) -> str:
        rows = [
            {"id": r.id, "type": r.type, "name": r.name, "parent": r.parent, "tags": dict(r.tags)} for r in RESOURCES
        ]
        return json.dumps({"resources": rows})

    def expected(self) -> set[str]:
        return {key_of(r) for r in RESOURCES}


class CsvResources(JsonResources):
    name = "csv"
    suffix = ".csv"

    def text(self) -> str:
        # Cut short, the last cell's quote stays open, which a strict reader sees.
        return (
            "id,type,name,parent,tag:owner,tag:владелец\r\n"
            'a-1,vm,alpha,,team-a,\r\n"b-2",,,a-1,,\r\n'
            '資源-3,база,ключ,,,"команда, и ещё очень, очень, очень длинное имя, которое обрывается"\r\n'
        )

    def expected(self) -> set[str]:
        return {
            key_of(RESOURCES[0]),
            key_of(RESOURCES[1]),
            key_of(
                Resource(
                    "資源-3",
                    "база",
                    "ключ",
                    None,
                    {"владелец": "команда, и ещё очень, очень, очень длинное имя, которое обрывается"},
                )
            ),
        }


class Principals(_FileRig):
    role = "directory"

    def text(self) -> str:
        return json.dumps(
            {
                "principals": [
                    {"kind": "user", "id": "u1", "name": "Ada", "email": "ada@x.org", "manager": "u2"},
                    {"kind": "user", "id": "u2", "name": "Grüße", "active": False, "attributes": {"d": ["a", "b"]}},
                    {"kind": "group", "id": "g1", "name": "Team A", "members": ["u1", "g2"]},
                    {"kind": "group", "id": "g2", "members": ["u2", "g1"]},
                    {"kind": "role", "id": "r1", "name": "admin", "members": ["g1"]},
                    {
                        "kind": "schedule",
                        "id": "s1",
                        "name": "on call",
                        "members": ["u1"],
                        "shifts": [
                            {"member": "u2", "start": "2026-11-23T09:00:00+01:00", "end": "2026-11-23T17:00:00Z"}
                        ],
                    },
                ]
            }
        )

    def expected(self) -> set[str]:
        u1, u2 = Ref(Kind.USER, "u1"), Ref(Kind.USER, "u2")
        g1, g2 = Ref(Kind.GROUP, "g1"), Ref(Kind.GROUP, "g2")
        return {
            key_of(Principal(Kind.USER, "u1", "Ada", "ada@x.org")),
            key_of(Principal(Kind.USER, "u2", "Grüße", active=False)),
            key_of(Principal(Kind.GROUP, "g1", "Team A")),
            key_of(Principal(Kind.GROUP, "g2")),
            key_of(Principal(Kind.ROLE, "r1", "admin")),
            key_of(Principal(Kind.SCHEDULE, "s1", "on call")),
            member_key(g1, u1),
            member_key(g1, g2),
            member_key(g2, u2),
            member_key(g2, g1),
            member_key(Ref(Kind.ROLE, "r1"), g1),
            member_key(Ref(Kind.SCHEDULE, "s1"), u1),
            shift_key(Shift(Ref(Kind.SCHEDULE, "s1"), u2, 1795420800, 1795453200)),
        }


RIGS: list[Rig] = [JsonResources(), CsvResources(), Principals()]

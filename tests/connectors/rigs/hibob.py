"""The rigs of the `hibob` connector: companies on `tests.servers.hibob`, which names the pages it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.errors import Forbidden
from connectors.values import Kind, Principal, Ref
from tests.connectors.directory_rig import answer_of
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of, member_key
from tests.servers.hibob import HiBobServer, problem
from tests.servers.oncall import Answer

PEOPLE = [
    # id, e-mail, name, lifecycle status, department
    ("3332883884017713238", "ada@acme.example", "Ada Lovelace", "employed", "209192163"),
    ("3332883884017713239", "дина@acme.example", "Дина", "parental leave", "209192164"),
    ("3332883884017713240", "yamada@acme.example", "山田 太郎", "terminated", "209192163"),
    ("3332883884017713241", "zoë@acme.example", "Zoë 🦉 \u202e", "hired", "209192165"),
    ("3332883884017713242", "bob+x@acme.example", 'O\'Brien "Bob" <b>', "garden leave", "209192165"),
    ("3332883884017713243", None, "x" * 300, "employed", None),
    ("3332883884017713244", "old@acme.example", "Old", "employed", "209192167"),
]
DEPARTMENTS = {
    # name, parent, archived
    "209192163": ("Team Payments", "209192166", False),
    "209192164": ("команда: ключи", "209192166", False),
    "209192165": ("営業 🦉", None, False),
    "209192166": ("Engineering " + "y" * 300, None, False),
    "209192167": ("Archived, with people", None, True),
    "209192168": ("Archived, and empty", None, True),
}


class HiBobRig(Rig):
    kind = "hibob"
    role = "directory"
    name = "both-forms"
    forms = frozenset({"flat", "nested"})
    faults = {**{k: v for k, v in USUAL_FAULTS.items() if k != Fault.REPEATED_TOKEN}, Fault.EMPTY_LIST: Forbidden}
    """Bob has no pages: everybody comes in one answer."""
    refusals = {
        Fault.UNAUTHENTICATED: problem(401, "Unauthorized"),
        Fault.FORBIDDEN: problem(403, "Forbidden"),
        Fault.THROTTLED_ONCE: problem(429, "Too Many Requests", {"X-RateLimit-Reset": "0"}),
    }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with HiBobServer() as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "token")
            self.secret_file.write_text(self.server.token + "\n")
            self.server.forms = set(self.forms)
            for id_, email, name, lifecycle, department in PEOPLE:
                self.server.add_person(id_, email, name, lifecycle, department=department, manager=PEOPLE[0][0])
            for id_, (name, _, archived) in DEPARTMENTS.items():
                below = [d for d in self.server.departments if DEPARTMENTS[d["id"]][1] == id_]
                self.server.add_department(id_, name, *below, archived=archived)
            yield

    def options(self) -> dict[str, Any]:
        return {
            "service_user_id": self.server.service_user_id, "token": {"file": str(self.secret_file)},
            "endpoint": self.server.url, "ca_file": self.server.ca_file, "timeout": "10s",
        }  # fmt: skip

    def expected(self) -> set[str]:
        found = set()
        for id_, email, name, lifecycle, department in PEOPLE:
            active = lifecycle in {"employed", "parental leave"}
            found.add(key_of(Principal(Kind.USER, id_, name, email, active)))
            if department:
                found.add(member_key(Ref(Kind.GROUP, department), Ref(Kind.USER, id_)))
        for id_, (name, parent, _) in DEPARTMENTS.items():
            if name == "Archived, and empty":
                continue
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            if parent:
                found.add(member_key(Ref(Kind.GROUP, parent), Ref(Kind.GROUP, id_)))
        return found

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        answer = Answer(200, {"employees": []}) if fault is Fault.EMPTY_LIST else answer_of(fault, self.refusals)
        with self.server.broken("people", page, answer):
            yield


class FlatHiBobRig(HiBobRig):
    """Fields with slashes only."""

    name = "flat"
    forms = frozenset({"flat"})


class NestedHiBobRig(HiBobRig):
    """Fields in objects only."""

    name = "nested"
    forms = frozenset({"nested"})


RIGS: list[Rig] = [HiBobRig(), FlatHiBobRig(), NestedHiBobRig()]

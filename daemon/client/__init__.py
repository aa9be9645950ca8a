"""A small client: typed, and without dependencies; the standard library is all that it imports.

    with Owners("/run/ownerd/ownerd.sock") as owners:  # over the socket
        answer = owners.get("arn:aws:rds:us-east-1:111122223333:db:orders")

    with Owners.direct("/var/lib/ownerd/ownerd.db") as owners:  # from the file, where this process may read it
        answers = owners.get_many(ids)

Both give the same answers, and `Lookups` is what both can do. Errors: `NotRunning` if nobody answers on the socket,
`DatabaseUnusable` if the file cannot be read by this process or this version, and a `LookupProblem` for each problem
of docs/api.md.

    LookupProblem
    ├── UnknownResource    no integration has it
    ├── NotYetKnown        it, or its owner, may be known later
    ├── TooOld             known, but older than was asked for
    └── AmbiguousResource  integrations disagree; name one

`values` what an answer is; `problems` the errors; `wire` HTTP over the socket; `over_socket` and `direct` the two ways.
"""

from daemon.client.over_socket import Owners, Rows
from daemon.client.problems import (
    AmbiguousResource,
    LookupProblem,
    NotYetKnown,
    TooOld,
    UnknownResource,
    problem_of,
)
from daemon.client.values import Answer, Lookups, Member, Owner, Pending, Resource, Row, Tag
from daemon.errors import DatabaseUnusable, NotRunning, OwnerdError

__all__ = [
    "AmbiguousResource",
    "Answer",
    "DatabaseUnusable",
    "LookupProblem",
    "Lookups",
    "Member",
    "NotRunning",
    "NotYetKnown",
    "Owner",
    "OwnerdError",
    "Owners",
    "Pending",
    "Resource",
    "Row",
    "Rows",
    "Tag",
    "TooOld",
    "UnknownResource",
    "problem_of",
]

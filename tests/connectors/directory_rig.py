"""What the rigs of directories over HTTP share: the answers of pages that suffer the usual faults."""

from __future__ import annotations

from tests.connectors.rig import Fault
from tests.servers.oncall import Answer, Refusal


def answer_of(fault: Fault, refusals: dict[Fault, Refusal]) -> Answer:
    """What a page that suffers `fault` answers; `refusals` are in the vendor's words."""
    usual = {
        Fault.SERVER_ERROR: Answer(500, {"message": "Internal Server Error"}),
        Fault.UNAVAILABLE: Answer(503, b"<html>Service Unavailable</html>"),
        Fault.THROTTLED_BARE: Answer(429),
        Fault.EMPTY_BODY: Answer(200),
        Fault.EMPTY_LIST: Answer(empty=True),
        Fault.CUT_BODY: Answer(cut=True),
        Fault.REPEATED_TOKEN: Answer(repeat=True),
        Fault.REFUSED: Answer(refuse=True),
        Fault.HANG: Answer(stall=True),
    }
    if (refusal := refusals.get(fault)) is None:
        return usual[fault]
    answer = Answer(refusal.status, refusal.document, refusal.headers)
    if fault is Fault.THROTTLED_ONCE:
        answer.times = 1
    return answer

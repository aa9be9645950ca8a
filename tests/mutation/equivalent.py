"""Mutants that no test can tell from the original, each with the reason. They count as survivors all the same."""

from __future__ import annotations

_RULE, _MATCHING = "daemon/rule.py", "daemon/matching.py"

EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    (_RULE, "", "frozenset({'name', 'id', 'email'})", "{'name', 'id', 'email'}"): "nothing changes it",
    (_RULE, "claim_of", "if folded is None:", "if True:"): "what is folded once is folded again: it costs time only",
    (
        _RULE,
        "claim_of",
        "0",
        "-1",
    ): "of the values there is one; of the names, whose mutant is the same text, a test notices",
    (_RULE, "claim_of", "return None", "pass"): "the function's end returns None",
    (_RULE, "fitness", "return None", "pass"): "the function's end returns None",
    (_RULE, "name_principals", "0", "-1"): "`match` leaves former names or current ones, never both",
    (_MATCHING, "canonical", "if not text.isascii():", "if True:"): "NFKC leaves ASCII as it is: it costs time only",
    (_MATCHING, "canonical", "text.lower", "text.casefold"): "of ASCII they are the same",
    (
        _MATCHING,
        "canonical",
        "unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', text).casefold()).strip",
        "unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', text).casefold()).lstrip",
    ): "no character that is not white space has a normal form that ends in it (some begin with it)",
    (
        _MATCHING,
        "resource_key",
        "resource_id[:1] == '/' and resource_id[:15].lower().startswith(('/subscriptions/', '/providers/'))",
        "resource_id[:15].lower().startswith(('/subscriptions/', '/providers/'))",
    ): "both beginnings begin with that character: it saves time only",
    (_MATCHING, "resource_key", "15", "16"): "neither beginning is longer than 15",
}
"""By (module, function, before, after)."""

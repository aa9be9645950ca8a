"""When two texts mean the same: the canonical form, written out."""

from __future__ import annotations

import unicodedata

import pytest

from daemon.matching import canonical, resource_key


@pytest.mark.parametrize("separator", [*" \t\n-_./:@+", "\u00a0", "\u3000", "－", "＿", "．", "／", "：", "＠", "＋"])
def test_each_separator_is_a_dash(separator: str) -> None:
    """Alone, in runs, and in full width; a name that begins or ends with one keeps it."""
    assert canonical(f"a{separator}b") == "a-b"
    assert canonical(f"a{separator}-{separator}b") == "a-b"
    if not separator.isspace():
        assert canonical(f"{separator}a{separator}") == "-a-"


@pytest.mark.parametrize("character", [*"!\"#$%&'()*,;<=>?[\\]^`{|}~", "\u200b", "\u00ad", "\u2060", "·", "—", "–"])
def test_other_characters_are_none(character: str) -> None:
    """What only looks like a gap keeps two names apart: an invisible character too."""
    assert canonical(f"a{character}b") != "a-b"
    assert canonical(f"a{character}b") != "ab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("   ", ""),
        ("\u3000", ""),
        ("Team Payments", "team-payments"),
        ("TEAM_PAYMENTS", "team-payments"),
        (" team.payments\n", "team-payments"),
        ("\u3000Größe\u3000", "grösse"),
        ("ﬁn", "fin"),
        ("ＴＥＡＭ", "team"),
        ("İ", "i\u0307"),
        ("ς", "σ"),
        ("ΣΑΣ", "σασ"),
        ("Å", "å"),
        ("e\u0301", "é"),
        ("①", "1"),
        ("㎏", "kg"),
        ("ᾳ", "αι"),
        ("\u0345α", "ια"),
        ("資源", "資源"),
        ("ﷺ", "صلى-الله-عليه-وسلم"),
        ("´x", "\u0301x"),
        ("¨", "\u0308"),
    ],
)
def test_written_out(text: str, expected: str) -> None:
    """Scripts, ligatures, full width, and what only folding or only normalizing changes."""
    assert canonical(text) == expected


def test_it_is_what_unicode_calls_a_caseless_match() -> None:
    """For every character that either changes: NFKC and case folding until nothing changes more."""
    every = (chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000)
    for character in (c for c in every if c.casefold() != c or not unicodedata.is_normalized("NFKC", c)):
        text = f"A{character}b"
        folded = unicodedata.normalize("NFKC", text).casefold()
        for _ in range(3):
            folded = unicodedata.normalize("NFKC", folded).casefold()
        expected = canonical("".join(" " if c.isspace() else c for c in folded))
        assert canonical(text) == expected, hex(ord(character))


@pytest.mark.parametrize(
    ("resource", "key"),
    [
        ("/subscriptions/AB/resourceGroups/X", "/subscriptions/ab/resourcegroups/x"),
        ("/SUBSCRIPTIONS/AB", "/subscriptions/ab"),
        ("/providers/Microsoft.Management/managementGroups/Root", "/providers/microsoft.management/managementgroups/root"),
        ("/Providers/A", "/providers/a"),
        ("/subscriptions", "/subscriptions"),
        ("/Subscriptions", "/Subscriptions"),
        ("/Providers", "/Providers"),
        ("subscriptions/AB", "subscriptions/AB"),
        (" /subscriptions/AB", " /subscriptions/AB"),
        ("x/subscriptions/AB", "x/subscriptions/AB"),
        ("//cloudresourcemanager.googleapis.com/projects/AB", "//cloudresourcemanager.googleapis.com/projects/AB"),
        ("arn:aws:s3:::Bucket/subscriptions/", "arn:aws:s3:::Bucket/subscriptions/"),
        ("/AB/subscriptions/", "/AB/subscriptions/"),
        ("k8s://Prod/apis", "k8s://Prod/apis"),
        ("/ſubscriptions/AB", "/ſubscriptions/AB"),
        ("/subscriptions/Straße", "/subscriptions/straße"),
        ("", ""),
    ],
)  # fmt: skip
def test_whose_case_counts(resource: str, key: str) -> None:
    """Only ids of Azure Resource Manager lose theirs."""
    assert resource_key(resource) == key

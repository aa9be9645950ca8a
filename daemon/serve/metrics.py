"""Metrics in Prometheus's text format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from daemon.serve.tally import CONNECTION_EVENTS, LOOKUP_RESULTS
from daemon.store import wal
from daemon.store.reader import Reader
from daemon.text import printable

Sample = tuple[Mapping[str, str], float]


def metrics(reader: Reader, lookups: Counter[str], connections: Counter[str], now: float) -> str:
    """All metrics. Label values are names from the configuration and words of ours; never tags."""
    sources = reader.status()
    counts = reader.counts()
    sizes = wal.sizes(reader.path)
    name = [{"source": s["name"], "role": s["role"]} for s in sources]
    scopes = [({**n, "scope": c["name"]}, c) for n, s in zip(name, sources, strict=True) for c in s["scopes"]]
    parts = [
        _metric("lookups_total", "counter", "Lookups, by result.", _by("result", LOOKUP_RESULTS, lookups)),
        _metric(
            "connections_total",
            "counter",
            "Connections; and those that were refused, or ended before their client ended them.",
            _by("event", CONNECTION_EVENTS, connections),
        ),
        _metric(
            "source_up",
            "gauge",
            "Whether the last run of a source was whole.",
            [(n, float(s["state"] == "ok")) for n, s in zip(name, sources, strict=True)],
        ),
        _metric(
            "source_failures",
            "gauge",
            "Failed runs since the last good one.",
            [(n, s["failures"]) for n, s in zip(name, sources, strict=True)],
        ),
        _metric(
            "source_held",
            "gauge",
            "Whether a snapshot of a source is held.",
            [(n, float(s["held"] is not None)) for n, s in zip(name, sources, strict=True)],
        ),
        _metric(
            "source_gaps",
            "gauge",
            "Scopes of a source that cannot show all there is, by what is missing.",
            [
                ({**n, "gap": code}, number)
                for n, s in zip(name, sources, strict=True)
                for code, number in sorted(Counter(g["code"] for c in s["scopes"] for g in c["gaps"]).items())
            ],
        ),
        _metric("scope_rows", "gauge", "Rows of a scope.", [(n, c["rows"]) for n, c in scopes]),
        _metric(
            "scope_age_seconds",
            "gauge",
            "Time since a scope was last read; absent while it never was.",
            [(n, max(0.0, round(now - c["read_at"], 3))) for n, c in scopes if c["read_at"] is not None],
        ),
        _metric(
            "owner_rows",
            "gauge",
            "Resources, by integration and by why they fall back.",
            [
                ({"integration": i, "fallback": str(bool(f)).lower(), "reason": r}, n)
                for i, f, r, n in sorted(counts["rows"])
            ],
        ),
        _metric(
            "changes_pending",
            "gauge",
            "Changes of tags that wait, by integration; of those that hold any.",
            [({"integration": i}, n) for i, n in sorted(counts["pending"])],
        ),
        _metric(
            "drift_open",
            "gauge",
            "Open findings.",
            [({"integration": i, "kind": k}, n) for i, k, n in sorted(counts["drift"])],
        ),
        _metric("database_bytes", "gauge", "Size of the database.", [({}, sizes.bytes)]),
        _metric(
            "database_log_bytes",
            "gauge",
            "Size of its write-ahead log; it grows while a reader keeps a transaction open.",
            [({}, sizes.log_bytes)],
        ),
    ]
    return "".join(parts)


def _by(label: str, words: Iterable[str], counts: Counter[str]) -> list[Sample]:
    return [({label: word}, counts[word]) for word in words]


def _metric(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP ownerd_{name} {text}", f"# TYPE ownerd_{name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        lines.append(
            f"ownerd_{name}{{{inside}}} {value:g}" if value < 1e6 else f"ownerd_{name}{{{inside}}} {value:.0f}"
        )
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return printable(label).replace("\\", r"\\").replace('"', r"\"")

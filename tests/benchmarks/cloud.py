"""Reading a cloud: the connector's child process against a bare loop of the SDK over the same pages.

    python -m tests.benchmarks.cloud serve PORT RESOURCES      # a tagging API on loopback
    python -m tests.benchmarks.cloud loop URL                  # boto3, and nothing else

The pages are those of AWS's `GetResources`, a hundred resources each, without a rate limit.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from config.settings import parse_settings
from daemon.runner import job_for
from tests.benchmarks.peers import Missing, module, reading
from tests.benchmarks.report import Figure, Row, at_most
from tests.benchmarks.world import Size
from tests.processes import environment
from tests.servers.moto_aws import ENVIRONMENT

_PER_PAGE = 100
_SMALL = 10_000
_REGION = "us-east-1"
_CALLER = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    "<Arn>arn:aws:iam::111122223333:user/bench</Arn><UserId>AIDA</UserId><Account>111122223333</Account>"
    "</GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
)


# --- the server ---------------------------------------------------------------------------------------------------------


class TaggingApi:
    """An ASGI application: who the caller is, and pages of resources. Other services refuse, as without permission."""

    def __init__(self, size: Size) -> None:
        self._size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        asked = await receive()
        headers = dict(scope["headers"])
        kind, status = b"application/x-amz-json-1.1", 200
        if headers.get(b"x-amz-target", b"").endswith(b".GetResources"):
            body = self._page(json.loads(asked["body"]).get("PaginationToken") or "0")
        elif b"GetCallerIdentity" in asked["body"]:
            body, kind = _CALLER.encode(), b"text/xml"
        else:
            body, status = b'{"__type":"AccessDeniedException","message":"not allowed"}', 400
        told = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if status != 200:
            told.append((b"x-amzn-errortype", b"AccessDeniedException"))
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": body})

    def _page(self, token: str) -> bytes:
        start = int(token)
        end = min(start + _PER_PAGE, self._size.resources)
        rows: list[dict[str, Any]] = []
        for it in (self._size.resource(n) for n in range(start, end)):
            tags = [{"Key": key, "Value": value} for key, value in it.tags.items()]
            rows.append({"ResourceARN": it.id, "Tags": tags})
        more = "" if end == self._size.resources else str(end)
        return json.dumps({"PaginationToken": more, "ResourceTagMappingList": rows}).encode()


@contextmanager
def serving(size: Size) -> Iterator[str]:
    """The server in a process of its own; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # uvicorn takes what it is handed for a Unix socket, and leaves this out: each page would wait for 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        words = [sys.executable, "-m", "tests.benchmarks.cloud", "serve", str(listening.fileno()), str(size.resources)]
        process = subprocess.Popen(words, pass_fds=[listening.fileno()], env=environment())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield url
    finally:
        process.terminate()
        process.wait()


def _serve(fd: int, resources: int) -> None:
    import uvicorn

    uvicorn.run(TaggingApi(Size(resources)), fd=fd, loop="uvloop", lifespan="off", access_log=False, log_level="error")


# --- who reads ----------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """What a process took."""

    seconds: float
    cpu: float
    peak: float
    """MiB."""


def run(words: list[str], told: bytes = b"") -> Ended:
    """Run a process to its end. RuntimeError if it fails."""
    launch = [sys.executable, str(Path(__file__).with_name("launch.py")), *words]
    out = subprocess.run(launch, input=told, stdout=subprocess.PIPE, env=environment(**ENVIRONMENT), check=True)
    ended = json.loads(out.stdout)
    if code := ended.pop("code"):
        raise RuntimeError(f"{words}: exit code {code}")
    return Ended(**ended)


def child(folder: Path, connector: str, options: dict[str, Any], rows: int) -> Ended:
    """What the daemon starts for a run: reads an integration into a spool, which must then hold `rows` resources."""
    it = {"name": "it", "connector": connector, **options, "resource_owner": [], "integration_owner": []}
    owner = {"directory": "corp", "attribute": "group.name"}
    it |= {"resource_owner": [{"key": "owner", **owner}], "integration_owner": [{**owner, "values": ["platform"]}]}
    corp = {"name": "corp", "connector": "file", "path": "/nowhere"}
    settings = parse_settings({"directories": [corp], "integrations": [it]}, folder / "child.toml")
    spool = folder / "child.db"
    job = job_for(settings, settings.sources[-1], spool)
    job = replace(job, memory_limit=0)  # it is to be seen, not stopped
    ended = run([sys.executable, "-P", "-m", "daemon.child", "{parent}"], job.to_json())
    with closing(reading(spool)) as db:
        found = db.execute("SELECT count(*), (SELECT group_concat(error) FROM scope) FROM resource").fetchone()
    spool.unlink()
    assert found[0] == rows, found
    return ended


def _aws(url: str) -> dict[str, Any]:
    return {"endpoint": url, "regions": [_REGION]}


def _loop(url: str) -> None:
    import boto3

    client = boto3.client("resourcegroupstaggingapi", region_name=_REGION, endpoint_url=url)
    for page in client.get_paginator("get_resources").paginate(ResourcesPerPage=_PER_PAGE):
        for row in page["ResourceTagMappingList"]:
            {tag["Key"]: tag["Value"] for tag in row["Tags"]}  # what anybody does with it


# --- rows ---------------------------------------------------------------------------------------------------------------


def rows(folder: Path, size: Size, repetitions: int) -> Iterator[Row]:
    """Time over the same pages, and memory at this size over that at a small one."""
    try:
        module("boto3")
    except Missing as missing:
        yield Row("aws: a child reads", "a bare boto3 loop over the same pages", at_most(1.5), why=str(missing))
        return
    some = Size(min(size.resources, 20_000))
    ours, theirs = [], []
    with serving(some) as url:
        for _ in range(repetitions):
            ours.append(child(folder, "aws", _aws(url), some.resources))
            theirs.append(run([sys.executable, "-m", "tests.benchmarks.cloud", "loop", url]))
    what = f"aws: a child reads {some.resources:,} resources into the spool"
    peer = "a bare boto3 loop over the same pages"
    for name, unit in (("seconds", "s"), ("cpu", "CPU s"), ("peak", "MiB at most")):
        mine, others = (Figure(unit, tuple(getattr(it, name) for it in them)) for them in (ours, theirs))
        yield Row(what, peer, None, mine, others)
    peaks = []
    for resources in (size.resources, _SMALL):
        with serving(Size(resources)) as url:
            peaks.append(child(folder, "aws", _aws(url), resources).peak)
    large, small = (Figure("MiB", (peak,)) for peak in peaks)
    what = f"peak memory of the child that reads {size.resources:,} (aws)"
    yield Row(what, f"the same, {_SMALL:,}", at_most(1.5), large, small)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", fd, resources]:
            _serve(int(fd), int(resources))
        case ["loop", url]:
            _loop(url)

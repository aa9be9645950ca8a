"""The rig of the `aws` connector: moto's server, behind a proxy that spoils pages (tests/servers)."""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from connectors.values import Resource
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of
from tests.servers.aws_faults import AwsFaults
from tests.servers.moto_aws import REGIONS, Estate, MotoAws, aws_environment, fill, moto_aws

# The type of each ARN of the estate, by what stands between the account and the name.
TYPES = {
    "ec2:instance/": "ec2:instance",
    "ec2:volume/": "ec2:volume",
    "ec2:security-group/": "ec2:security-group",
    "rds:db:": "rds:db",
    "dynamodb:table/": "dynamodb:table",
    "sqs:": "sqs:queue",
    "sns:": "sns:topic",
    "kms:key/": "kms:key",
    "secretsmanager:secret:": "secretsmanager:secret",
    "logs:log-group:": "logs:log-group",
    "ecs:cluster/": "ecs:cluster",
    "elasticloadbalancing:targetgroup/": "elasticloadbalancing:targetgroup",
    "elasticloadbalancing:loadbalancer/": "elasticloadbalancing:loadbalancer",
    "s3:": "s3:bucket",
}
MOTO_ACCOUNT = "123456789012"


def type_of(arn: str) -> str:
    _, _, service, _, _, rest = arn.split(":", 5)
    return next(kind for start, kind in TYPES.items() if f"{service}:{rest}".startswith(start))


def resource_of(arn: str, tags: dict[str, str]) -> Resource:
    """What the connector should make of a line of the list, told from AWS's own table of ARN formats."""
    partition, account = arn.split(":")[1], arn.split(":")[4]
    service, rest = arn.split(":")[2], arn.split(":", 5)[5]
    start = next(s for s in TYPES if f"{service}:{rest}".startswith(s)).partition(":")[2]
    name = rest.removeprefix(start)
    if service == "elasticloadbalancing":  # targetgroup/NAME/ID, loadbalancer/app/NAME/ID
        name = name.split("/")[-2]
    owner = account or MOTO_ACCOUNT  # an S3 ARN names none
    return Resource(arn, type_of(arn), tags.get("Name", name), f"arn:{partition}:iam::{owner}:root", tags)


@functools.cache
def estate() -> tuple[MotoAws, Estate, int]:
    """The server, what is in it, and the pages of its longest list: filled once a process, since that takes seconds."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    server = stack.enter_context(moto_aws())
    filled = fill(server, scale=0.5)
    pages = server.client("resourcegroupstaggingapi").get_paginator("get_resources").paginate()
    return server, filled, sum(1 for _ in pages)


class AwsRig(Rig):
    kind = "aws"
    role = "integration"
    faults = USUAL_FAULTS

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with aws_environment():
            server, self.estate, self.pages = estate()
            assert self.pages >= 3
            with AwsFaults(server.endpoint, REGIONS[0]).running() as self.proxy:
                yield

    def options(self) -> dict[str, Any]:
        return {"endpoint": self.proxy.endpoint, "regions": list(REGIONS)}

    def expected(self) -> set[str]:
        return {key_of(resource_of(arn, tags)) for arn, tags in self.estate.listed().items()}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        with self.proxy.inject(fault, page):
            yield


RIGS = [AwsRig()]

"""Amazon Resource Names, as the connectors that meet them read them.

Shape and examples: AWS General Reference, "Identify AWS resources with Amazon Resource Names (ARNs)". Types are written
`service:type` as in the `ResourceTypeFilters` of the Resource Groups Tagging API: both words as the ARN has them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Services whose ARNs end in a bare name: the type is what the service calls the thing.
_UNTYPED = {
    "s3": "bucket",
    "sns": "topic",
    "sqs": "queue",
    "codecommit": "repository",
    "codepipeline": "pipeline",
}
# What AWS appends to a name that somebody chose: a load balancer's and a listener's number, a stack's UUID.
_GENERATED = re.compile(r"[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Arn(NamedTuple):
    """The parts of one ARN. Any of `region` and `account` may be empty: `arn:aws:s3:::logs`."""

    partition: str
    service: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> Arn:
        """Take `text` apart; ValueError if it is no ARN."""
        parts = text.split(":", 5)
        if len(parts) != 6 or parts[0] != "arn" or not (parts[1] and parts[2] and parts[5]):
            raise ValueError("not an ARN")
        return cls(*parts[1:])

    @property
    def type(self) -> str:
        """`rds:db`, `ec2:instance`, `s3:bucket`; the service alone where the ARN says no more."""
        path = self.resource.lstrip("/")
        if self.service == "s3" and not self.region and not self.account:
            return "s3:object" if "/" in path else "s3:bucket"
        first, *rest = re.split(r"[:/]", path)
        if not rest:
            word = _UNTYPED.get(self.service, "")
        elif self.service == "apigateway":  # /restapis/ID/stages/NAME is a restapis/stages
            word = "/".join(path.split("/")[::2])
        elif self.service == "wafv2":  # regional/webacl/NAME/ID
            word = f"{first}/{rest[0]}"
        else:
            word = first
        return f"{self.service}:{word}" if word else self.service

    @property
    def name(self) -> str:
        """The last part that a person chose, else the last: `orders` of `db:orders`, `web` of `stack/web/UUID`."""
        path = self.resource.strip("/")
        kind = re.match(r"[^:/]*([:/])", path)
        if kind is None:
            return path
        rest = path[kind.end() :]
        if kind[1] == ":":  # the rest may be a path that is the name: log-group:/aws/lambda/pay
            return rest.rpartition(":")[2].removeprefix("autoScalingGroupName/") or rest
        parts = rest.split("/")
        while len(parts) > 1 and _GENERATED.fullmatch(parts[-1]):
            parts.pop()
        return parts[-1]


def account_arn(partition: str, account: str) -> str:
    """How ownerd names an account: the ARN by which IAM policies do.

    AWS Organizations has another, `arn:aws:organizations::MANAGEMENT:account/o-…/ID`, which a plain caller cannot know.
    """
    return f"arn:{partition}:iam::{account}:root"

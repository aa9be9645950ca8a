"""Resource Explorer and AWS Config aggregators, which moto's server lacks (or has without their lists).

Written from the API references of both services ("GetIndex", "GetDefaultView", "GetView", "ListResources";
"DescribeConfigurationAggregators", "SelectAggregateResourceConfig" with the sample results of "Querying the current
configuration state of AWS resources"). Every answer is checked against the service's model, as botocore ships it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.arn import Arn


@dataclass
class Index:
    """Resource Explorer in one account and region."""

    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    """ARN → tags."""
    state: str = "ACTIVE"
    view: bool = True
    """Whether there is a default view."""
    filter: str = ""
    tags: bool = True
    """Whether the view includes tags."""
    page: int = 3
    repeats: bool = False
    """Whether the page token never changes."""
    others: list[dict[str, Any]] = field(default_factory=list)
    """Rows of other accounts and regions, as an aggregator's index has them."""


Answer = tuple[int, bytes]
_VIEW = "arn:aws:resource-explorer-2:{region}:{account}:view/all/1111-2222"


class Indexes:
    """What is on, where. Nothing, at first."""

    def __init__(self) -> None:
        self.explorers: dict[tuple[str, str], Index] = {}
        """By account and region."""
        self.aggregators: list[dict[str, Any]] = []
        self.recorded: list[dict[str, Any]] = []
        """What the aggregators have: rows with accountId, awsRegion, arn, resourceType and tags."""
        self.denied: set[str] = set()
        """Operations that are not allowed."""
        self.queries: list[str] = []

    def answer(self, service: str, operation: str, account: str, region: str, body: bytes) -> Answer | None:
        """The answer to a call; None if it is not for these services."""
        if service not in {"resource-explorer-2", "config"}:
            return None
        if operation in self.denied:
            return refuse(
                403 if service != "config" else 400,
                "AccessDeniedException",
                f"User: arn:aws:sts::{account}:assumed-role/ownerd-read/ownerd is not authorized to perform: "
                f"{service}:{operation}",
            )
        params = json.loads(body or b"{}")
        found = getattr(self, f"_{operation}")(account, region, params)
        if isinstance(found, dict):
            check(service, operation, found)
            return 200, json.dumps(found).encode()
        told: Answer = found
        return told

    def _GetIndex(self, account: str, region: str, _: Any) -> dict[str, Any] | Answer:
        index = self.explorers.get((account, region))
        if index is None:
            return refuse(404, "ResourceNotFoundException", "Index not found")
        arn = f"arn:aws:resource-explorer-2:{region}:{account}:index/1111"
        return {"Arn": arn, "State": index.state, "Type": "LOCAL", "Tags": {}}

    def _GetDefaultView(self, account: str, region: str, _: Any) -> dict[str, Any]:
        view = _VIEW.format(region=region, account=account)
        return {"ViewArn": view} if self.explorers[account, region].view else {}

    def _GetView(self, account: str, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        index = self.explorers[account, region]
        included = [{"Name": "tags"}] if index.tags else []
        view = {"ViewArn": params["ViewArn"], "Owner": account, "IncludedProperties": included}
        return {"View": {**view, "Filters": {"FilterString": index.filter}}, "Tags": {}}

    def _ListResources(self, account: str, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        index = self.explorers[account, region]
        assert 1 <= params["MaxResults"] <= 1000
        rows = [self._row(arn, tags, account, region) for arn, tags in index.resources.items()] + index.others
        start = int(params.get("NextToken", "0"))
        told: dict[str, Any] = {"Resources": rows[start : start + index.page], "ViewArn": params["ViewArn"]}
        if index.repeats:
            return {**told, "NextToken": "0"}
        return told if start + index.page >= len(rows) else {**told, "NextToken": str(start + index.page)}

    @staticmethod
    def _row(arn: str, tags: dict[str, str], account: str, region: str) -> dict[str, Any]:
        parsed = Arn.parse(arn)
        where = parsed.region or ("global" if parsed.service == "iam" else region)
        data = [{"Key": k, "Value": v} for k, v in tags.items()]
        properties = [{"Name": "tags", "Data": data}] if tags else []
        return {
            "Arn": arn,
            "OwningAccountId": account,
            "Region": where,
            "ResourceType": parsed.type,
            "Service": parsed.service,
            "Properties": properties,
        }

    def _DescribeConfigurationAggregators(self, *_: Any) -> dict[str, Any]:
        return {"ConfigurationAggregators": self.aggregators}

    def _SelectAggregateResourceConfig(self, _a: str, _r: str, params: Mapping[str, Any]) -> dict[str, Any]:
        query = re.fullmatch(
            r"SELECT arn, resourceType, tags WHERE accountId = '(\d{12})' AND awsRegion IN \((.+)\)",
            params["Expression"],
        )
        assert query, params["Expression"]
        assert params["Limit"] <= 100
        self.queries.append(params["Expression"])
        regions = re.findall(r"'([^']+)'", query[2])
        rows = [
            json.dumps({k: r[k] for k in ("arn", "resourceType", "tags") if k in r})
            for r in self.recorded
            if r["accountId"] == query[1] and r["awsRegion"] in regions
        ]
        start = int(params.get("NextToken", "0"))
        told = {"Results": rows[start : start + 2], "QueryInfo": {"SelectFields": [{"Name": "arn"}]}}
        return told if start + 2 >= len(rows) else {**told, "NextToken": str(start + 2)}


def refuse(status: int, code: str, message: str) -> Answer:
    return status, json.dumps({"__type": code, "message": message, "Message": message}).encode()


@functools.cache
def model(service: str) -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model(service)


def check(service: str, operation: str, answer: dict[str, Any]) -> None:
    """AssertionError if the service could not answer so."""
    from botocore.validate import ParamValidator

    report = ParamValidator().validate(answer, model(service).operation_model(operation).output_shape)
    assert not report.has_errors(), report.generate_report()


def recorded(account: str, region: str, arn: str, kind: str, **tags: str) -> dict[str, Any]:
    """A row of an aggregator."""
    told = [{"tag": f"{k}={v}", "key": k, "value": v} for k, v in tags.items()]
    return {"accountId": account, "awsRegion": region, "arn": arn, "resourceType": kind, "tags": told}

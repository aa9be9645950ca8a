"""What the tagging API does not list: resources that never had a tag, and services that do not take part in it.

Resource Explorer's index of the region lists them, where it is on; else an AWS Config aggregator of the caller's
account, in its home region. Where neither is, that is a `Gap`. Both lag behind by minutes to hours: what the tagging
API lists as well is taken from there.

Sources: Resource Explorer API Reference (GetIndex, GetDefaultView, GetView, ListResources); AWS Config API Reference
(DescribeConfigurationAggregators, SelectAggregateResourceConfig) and "Querying the current configuration state".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from connectors.aws_sdk import Sdk, part
from connectors.errors import BadData, Forbidden, ServerFault
from connectors.paging import Pages
from connectors.values import Gap

Found = tuple[str, dict[str, str]]
"""An ARN and its tags."""

_EXPLORER = "resource-explorer-2"
_OFF = ("ResourceNotFoundException",)
_PRIMARY = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
"""By partition, the region in which AWS lists what belongs to no region."""

NEITHER = Gap(
    "never_tagged",
    "resources that never had a tag: the tagging API does not list them, and neither Resource Explorer nor an AWS "
    "Config aggregator is on",
    "turn on Resource Explorer in each account and region, with a default view that includes tags: "
    "docs/connectors/aws.md, «Never-tagged resources»",
)


def _closed(permission: str) -> Gap:
    return Gap(
        "never_tagged",
        f"resources that never had a tag: the tagging API does not list them, and {permission} is not allowed",
        f"allow {permission} and its kin: docs/connectors/aws.md, «The least privilege»",
    )


def _narrow(why: str) -> Gap:
    return Gap(
        "never_tagged",
        f"some resources that never had a tag: {why}",
        "make a view of everything, with tags, the default one of each region: docs/connectors/aws.md",
    )


class Untagged:
    """Finds them, account by account and region by region; from several threads."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        self._lock = threading.Lock()
        self._aggregators: list[dict[str, Any]] | Gap | None = None

    def coverage(self, account: str, region: str) -> str | Gap:
        """How they can be found there: a view's ARN, an aggregator's name, or what keeps them from it."""
        found = self._view(account, region)
        if isinstance(found, str):
            return found
        aggregator = self._aggregator(account, region)
        if isinstance(aggregator, str):
            return aggregator
        return found or aggregator or NEITHER

    def read(self, account: str, region: str) -> Iterator[Found | Gap]:
        """Every resource there that is known to the index, tagged or not; or the gap."""
        means = self.coverage(account, region)
        if isinstance(means, Gap):
            yield means
        elif means.startswith("arn:"):
            yield from self._explored(means, account, region)
        else:
            yield from self._recorded(means, account, region)

    # --- Resource Explorer ------------------------------------------------------------------------------------------

    def _view(self, account: str, region: str) -> str | Gap | None:
        """The region's default view; a gap if it does not show everything; None if there is no index."""
        if not self._sdk.offers(_EXPLORER, region):
            return None
        place = f"{account}/{region}"
        try:
            index = self._explorer("GetIndex", account, region)
            if index.get("State") not in {"ACTIVE", "UPDATING"}:
                return None if not index or index.get("State") == "DELETED" else _narrow("the index is being built")
            view = self._explorer("GetDefaultView", account, region).get("ViewArn")
            if not view:
                return _narrow("Resource Explorer has no default view")
            told = part(self._explorer("GetView", account, region, ViewArn=view), "View", f"{place}: GetView")
        except Forbidden as error:
            return _closed(error.permission)
        if told.get("Filters", {}).get("FilterString"):
            return _narrow("Resource Explorer's default view is filtered")
        if not any(p.get("Name") == "tags" for p in told.get("IncludedProperties") or ()):
            # Whatever the tagging API leaves out would look as if it had no tags.
            return _narrow("Resource Explorer's default view has no tags")
        return str(view)

    def _explored(self, view: str, account: str, region: str) -> Iterator[Found]:
        primary = region == _PRIMARY.get(view.split(":")[1])
        what = f"{account}/{region}: {_EXPLORER}:ListResources"
        pages, token = Pages(what), ""
        while True:
            more = {"NextToken": token} if token else {}
            answer = self._explorer("ListResources", account, region, ViewArn=view, MaxResults=1000, **more)
            for row in part(answer, "Resources", what):
                # An aggregator's index has other regions too, and an organization's view other accounts.
                here = row.get("Region") == region or (primary and row.get("Region") == "global")
                if here and row.get("OwningAccountId") == account:
                    yield part(row, "Arn", what), _properties(row, what)
            if not (token := answer.get("NextToken") or ""):
                return
            pages.turn(token)

    def _explorer(self, operation: str, account: str, region: str, **params: Any) -> dict[str, Any]:
        absent = _OFF if operation.startswith("Get") else ()
        return self._sdk.call(
            _EXPLORER,
            f"{_EXPLORER}:{operation}",
            region,
            account=account,
            place=f"{account}/{region}",
            absent=absent,
            **params,
        )

    # --- AWS Config -------------------------------------------------------------------------------------------------

    def _aggregator(self, account: str, region: str) -> str | Gap | None:
        with self._lock:
            if self._aggregators is None:
                self._aggregators = self._list_aggregators()
        if isinstance(self._aggregators, Gap):
            return self._aggregators
        for aggregator in self._aggregators:
            if _covers(aggregator, account, region):
                return str(aggregator["ConfigurationAggregatorName"])
        return None

    def _list_aggregators(self) -> list[dict[str, Any]] | Gap:
        what = "config:DescribeConfigurationAggregators"
        found: list[dict[str, Any]] = []
        pages, token = Pages(what), ""
        if not self._sdk.offers("config", self._sdk.home):
            return []
        while True:
            more = {"NextToken": token} if token else {}
            try:
                answer = self._sdk.call("config", what, self._sdk.home, **more)
            except Forbidden:
                return _closed(what)
            found += part(answer, "ConfigurationAggregators", what)
            if not (token := answer.get("NextToken") or ""):
                return found
            pages.turn(token)

    def _recorded(self, aggregator: str, account: str, region: str) -> Iterator[Found]:
        regions = [region, "global"] if region in _PRIMARY.values() else [region]
        named = ", ".join(f"'{r}'" for r in regions)
        query = f"SELECT arn, resourceType, tags WHERE accountId = '{account}' AND awsRegion IN ({named})"
        permission = "config:SelectAggregateResourceConfig"
        what = f"{account}/{region}: {permission}"
        pages, token = Pages(what), ""
        while True:
            more = {"NextToken": token} if token else {}
            with self._lock:  # one account's quota serves all scopes
                answer = self._sdk.call(
                    "config",
                    permission,
                    self._sdk.home,
                    place=f"{account}/{region}",
                    Expression=query,
                    ConfigurationAggregatorName=aggregator,
                    Limit=100,
                    **more,
                )
            for text in part(answer, "Results", what):
                if (found := _row(text, what)) is not None:
                    yield found
            if not (token := answer.get("NextToken") or ""):
                return
            pages.turn(token)


def _covers(aggregator: dict[str, Any], account: str, region: str) -> bool:
    """Whether an aggregator has all that is recorded in the account and region."""
    if (aggregator.get("AggregatorFilters") or {}).get("ResourceType"):
        return False
    organization = aggregator.get("OrganizationAggregationSource")
    sources = [organization] if organization else []
    sources += [s for s in aggregator.get("AccountAggregationSources") or () if account in s.get("AccountIds", ())]
    return any(s.get("AllAwsRegions") or region in (s.get("AwsRegions") or ()) for s in sources)


def _row(text: str, place: str) -> Found | None:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ServerFault(f"{place}: a result is cut short") from error
    if str(row.get("resourceType", "")).startswith("AWS::Config::") or not row.get("arn"):
        return None  # Config's own bookkeeping, and parts of things (a bucket policy, an attachment), have no ARN
    return str(row["arn"]), _pairs(row.get("tags") or (), "key", "value", place)


def _properties(row: dict[str, Any], place: str) -> dict[str, str]:
    for told in row.get("Properties") or ():
        if told.get("Name") == "tags":
            return _pairs(told.get("Data") or (), "Key", "Value", place)
    return {}


def _pairs(tags: Any, key: str, value: str, place: str) -> dict[str, str]:
    try:
        return {str(tag[key]): str(tag.get(value) or "") for tag in tags}
    except (KeyError, TypeError, AttributeError) as error:
        raise BadData(f"{place}: tags that cannot be understood") from error

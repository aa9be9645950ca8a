"""The names that Cloud Asset Inventory gives to Google resources, from what a Terraform state says of them.

Source: Cloud Asset Inventory, "Asset names" and "Asset types". A type whose name there has the project's *number* is
left out, unless the state has that very name, since a state knows projects by their ids. One name is not the
inventory's: a Cloud SQL instance is `//sqladmin.googleapis.com/…`, as in IAM's "Full resource names" and in ownerd's
contract, where the inventory writes `//cloudsql.googleapis.com/…`; the `gcp` connector renames it, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Attributes = Mapping[str, Any]


class Asset(NamedTuple):
    """One resource by its full resource name; `labels` is the block of the attributes that holds its labels."""

    id: str
    type: str
    name: str
    parent: str | None
    labels: Attributes


class _Rule(NamedTuple):
    """A type in the inventory's words, and how the name follows from the attributes.

    `{path}` is the self link from `projects/` on. `labels` is the block that holds the labels, if not the top one.
    """

    type: str
    name: str
    labels: str = ""


_COMPUTE = {
    "address": "Address",
    "disk": "Disk",
    "external_vpn_gateway": "ExternalVpnGateway",
    "forwarding_rule": "ForwardingRule",
    "global_address": "GlobalAddress",
    "global_forwarding_rule": "GlobalForwardingRule",
    "ha_vpn_gateway": "VpnGateway",
    "image": "Image",
    "instance": "Instance",
    "instance_from_template": "Instance",
    "interconnect": "Interconnect",
    "interconnect_attachment": "InterconnectAttachment",
    "region_disk": "RegionDisk",
    "snapshot": "Snapshot",
    "vpn_tunnel": "VpnTunnel",
}
_RULES = {
    **{
        f"google_compute_{kind}": _Rule(f"compute.googleapis.com/{word}", "//compute.googleapis.com/{path}")
        for kind, word in _COMPUTE.items()
    },
    **{
        f"google_{kind}": _Rule(f"{service}/{word}", f"//{service}/{{id}}")
        for kind, service, word in (
            ("bigquery_dataset", "bigquery.googleapis.com", "Dataset"),
            ("bigquery_table", "bigquery.googleapis.com", "Table"),
            ("cloudfunctions_function", "cloudfunctions.googleapis.com", "CloudFunction"),
            ("cloudfunctions2_function", "cloudfunctions.googleapis.com", "Function"),
            ("cloud_run_v2_job", "run.googleapis.com", "Job"),
            ("cloud_run_v2_service", "run.googleapis.com", "Service"),
            ("data_fusion_instance", "datafusion.googleapis.com", "Instance"),
            ("dataproc_cluster", "dataproc.googleapis.com", "Cluster"),
            ("kms_crypto_key", "cloudkms.googleapis.com", "CryptoKey"),
            ("privateca_ca_pool", "privateca.googleapis.com", "CaPool"),
            ("pubsub_subscription", "pubsub.googleapis.com", "Subscription"),
            ("pubsub_topic", "pubsub.googleapis.com", "Topic"),
            ("redis_instance", "redis.googleapis.com", "Instance"),
        )
    },
    "google_bigtable_instance": _Rule(
        "bigtableadmin.googleapis.com/Instance", "//bigtable.googleapis.com/projects/{project}/instances/{name}"
    ),
    "google_cloud_run_service": _Rule(
        "run.googleapis.com/Service",
        "//run.googleapis.com/projects/{project}/locations/{location}/services/{name}",
        "metadata",
    ),
    # A zonal cluster is under zones/ or locations/ in its name: only the self link tells.
    "google_container_cluster": _Rule("container.googleapis.com/Cluster", "//container.googleapis.com/{path}"),
    "google_dns_managed_zone": _Rule(
        "dns.googleapis.com/ManagedZone", "//dns.googleapis.com/projects/{project}/managedZones/{managed_zone_id}"
    ),
    "google_project": _Rule(
        "cloudresourcemanager.googleapis.com/Project", "//cloudresourcemanager.googleapis.com/projects/{project_id}"
    ),
    # `name` is projects/NUMBER/secrets/ID, as the service gives it.
    "google_secret_manager_secret": _Rule(
        "secretmanager.googleapis.com/Secret", "//secretmanager.googleapis.com/{name}"
    ),
    "google_spanner_instance": _Rule(
        "spanner.googleapis.com/Instance", "//spanner.googleapis.com/projects/{project}/instances/{name}"
    ),
    "google_sql_database_instance": _Rule(
        "sqladmin.googleapis.com/Instance", "//sqladmin.googleapis.com/projects/{project}/instances/{name}", "settings"
    ),
    "google_storage_bucket": _Rule("storage.googleapis.com/Bucket", "//storage.googleapis.com/{name}"),
}
_SELF_LINK = re.compile(
    r"https://(?:www|compute|container)\.googleapis\.com/(?:compute/)?(?:v1|v1beta1|beta)/(projects/.+)"
)
_MANAGER = "//cloudresourcemanager.googleapis.com"


def asset_of(kind: str, attributes: Attributes) -> Asset | None:
    """The asset that a resource of the Terraform type `kind` is; None if its name cannot be told exactly."""
    if (rule := _RULES.get(kind)) is None:
        return None
    # Numbers stand in a state as numbers: managed_zone_id.
    parts = {k: str(v) for k, v in attributes.items() if isinstance(v, str | int) and v != ""}
    if link := _SELF_LINK.fullmatch(parts.get("self_link", "")):
        parts["path"] = link[1]
    try:
        name = rule.name.format_map(parts)
    except KeyError:
        return None  # half created, or of a provider version that did not keep it
    if kind != "google_storage_bucket" and not re.match(r"//[^/]+/projects/[^/]+(/|$)", name):
        return None
    block = attributes.get(rule.labels) if rule.labels else [attributes]
    labels = block[0] if isinstance(block, list) and block and isinstance(block[0], Mapping) else {}
    called = parts.get("name", "").rpartition("/")[2] or name.rpartition("/")[2]
    return Asset(name, rule.type, called, _parent(kind, name, parts), labels)


def _parent(kind: str, name: str, parts: Mapping[str, str]) -> str | None:
    if kind == "google_project":
        for above, word in (("folder_id", "folders"), ("org_id", "organizations")):
            if number := parts.get(above, "").rpartition("/")[2]:
                return f"{_MANAGER}/{word}/{number}"
        return None
    inside = re.match(r"//[^/]+/projects/([^/]+)/", name)
    project = parts.get("project") or (inside[1] if inside else "")
    return f"{_MANAGER}/projects/{project}" if project else None

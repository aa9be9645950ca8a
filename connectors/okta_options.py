"""Options of the `okta` connector."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from connectors.options import HttpOptions, Secret
from connectors.pace import SHARE


class OktaOptions(HttpOptions):
    """Options of the `okta` connector."""

    org_url: str = Field(description="URL of the org: https://acme.okta.com")
    token: Secret | None = Field(None, description="API token (SSWS).")
    client_id: str | None = Field(None, min_length=1, description="Id of an API services app; with private_key.")
    private_key: Secret | None = Field(None, description="The app's RSA private key: PEM, or a JWK as JSON.")
    rate_share: float = Field(
        SHARE, gt=0, le=1, description="Share of each of the org's rate limits that a run uses; the rest is others'."
    )

    @model_validator(mode="after")
    def _sound(self) -> OktaOptions:
        if (self.client_id is None) != (self.private_key is None):
            raise PydanticCustomError("okta_login", "client_id and private_key belong together: give both")
        if (self.token is None) == (self.client_id is None):
            raise PydanticCustomError("okta_login", "give one login: either token, or client_id with private_key")
        parts = urlsplit(self.org_url)
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
            raise PydanticCustomError("org_url", "org_url is the org's bare URL, without a path: https://acme.okta.com")
        if "-admin." in (parts.hostname or ""):
            raise PydanticCustomError("org_url", "org_url is the org's URL, not the admin console's: leave out -admin")
        return self

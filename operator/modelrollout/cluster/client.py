"""A thin client: plain dictionaries in and out, every call with a time limit and our own name.

The typed models of the client library are strict and refuse what a newer API server adds, so they
are left aside; its authentication and transport are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

from modelrollout.api.names import FIELD_MANAGER
from modelrollout.errors import Conflict, Invalid, Transient

__all__ = ["KubeClient", "Resource", "connect"]

REQUEST_TIMEOUT_SECONDS: Final = 10.0

ContentType = Literal[
    "application/json",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
]
Object = dict[str, Any]

_NOT_FOUND = 404
_CONFLICT = 409
_FORBIDDEN = 403
_UNPROCESSABLE = 422
_FIRST_SERVER_ERROR = 500
_TOO_MANY = 429


class Resource:
    """Where objects of one kind live in the API.

    Parameters
    ----------
    api_version
        Such as ``apps/v1`` or ``v1``.
    plural
        Such as ``deployments``.
    """

    def __init__(self, api_version: str, plural: str) -> None:
        self._root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        self._plural = plural

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the path of a collection, an object or a subresource of it."""
        parts = [self._root, "namespaces", quote(namespace, safe=""), self._plural]
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)

    def __str__(self) -> str:
        return self._plural


class KubeClient:
    """Requests to the API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        api.user_agent = FIELD_MANAGER

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return an object, or ``None`` when it does not exist."""
        return await self._request("GET", resource.path(namespace, name), missing_ok=True)

    async def find(
        self, resource: Resource, namespace: str, labels: Mapping[str, str]
    ) -> list[Object]:
        """Return all objects of a namespace that carry the labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        answer = await self._request(
            "GET", resource.path(namespace), query={"labelSelector": selector}
        )
        items: list[Object] = (answer or {}).get("items", [])
        return items

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object | None:
        """Create an object; return ``None`` when one of that name exists already."""
        try:
            return await self._request(
                "POST", resource.path(namespace), body, query={"fieldManager": FIELD_MANAGER}
            )
        except Conflict:
            return None

    async def apply(self, resource: Resource, namespace: str, body: Object) -> Object:
        """Apply an object server-side, as the owner of the fields that it holds."""
        answer = await self._request(
            "PATCH",
            resource.path(namespace, body["metadata"]["name"]),
            body,
            content_type="application/apply-patch+yaml",
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
        )
        return answer or {}

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Object | list[Object],
        *,
        subresource: str = "",
    ) -> Object | None:
        """Patch an object: a list is a JSON Patch, a mapping a merge patch.

        Returns ``None`` when the object does not exist.
        """
        return await self._request(
            "PATCH",
            resource.path(namespace, name, subresource),
            body,
            content_type=(
                "application/json-patch+json"
                if isinstance(body, list)
                else "application/merge-patch+json"
            ),
            query={"fieldManager": FIELD_MANAGER},
            missing_ok=True,
        )

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete one incarnation of an object and what it owns; gone already is fine."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._request("DELETE", resource.path(namespace, name), options, missing_ok=True)
        except Conflict:
            # Another object has taken the name; it is not ours to delete.
            return

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None = None,
        *,
        content_type: ContentType = "application/json",
        query: Mapping[str, str] | None = None,
        missing_ok: bool = False,
    ) -> Object | None:
        serialized = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(
                *serialized, _request_timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
            )
            text = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Transient(
                "ApiServerUnreachable", f"{method} {path}: {str(error) or type(error).__name__}"
            ) from error
        if response.status == _NOT_FOUND and missing_ok:
            return None
        if response.status >= 400:  # noqa: PLR2004 - the beginning of HTTP's errors
            raise _failure(method, path, response.status, text)
        document: Object = json.loads(text)
        return document


def _failure(method: str, path: str, status: int, text: bytes) -> Exception:
    try:
        said = str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        said = text[:300].decode(errors="replace")
    message = f"{method} {path} answered {status}: {said}"
    if status == _CONFLICT:
        return Conflict("Conflict", message)
    if status in {_TOO_MANY, _FORBIDDEN} or status >= _FIRST_SERVER_ERROR:
        return Transient("ApiServerRefused", message)
    if status == _UNPROCESSABLE:
        return Invalid("ObjectRefused", message)
    return Transient("ApiServerRefused", message)


async def connect() -> KubeClient:
    """Return a client for the cluster that this process runs in, or for the kubeconfig's.

    Raises
    ------
    Invalid
        When neither a service account nor a kubeconfig is found.
    """
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise Invalid(
                "NoCluster",
                f"no service account in a pod and no usable kubeconfig: {error}; "
                "set KUBECONFIG, or run in a pod",
            ) from error
    return KubeClient(client.ApiClient(configuration))

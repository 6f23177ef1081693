"""The HTTP API: OpenAI's image generations and the Open Inference Protocol's health paths."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from imagegen import contract
from imagegen.contract import Outcome
from imagegen.errors import RequestRefusedError
from imagegen.server.body import EarlyAnswers
from imagegen.server.forms import error_body
from imagegen.server.generation import generate
from imagegen.server.openapi import document
from imagegen.server.scrapes import metrics_route
from imagegen.server.state import ServerState

__all__ = ["build_app"]

_LOG = logging.getLogger(__name__)
_RETRY_IN_VAIN = frozenset(
    {
        "deadline_exceeded",
        "gpu_out_of_memory",
        "image_broken",
        "upstream_broken",
        "upstream_garbage",
        "upstream_key",
        "upstream_redirect",
        "upstream_refused",
        "upstream_timeout",
        "upstream_wrong_size",
    }
)
"""Clients of OpenAI's try errors of servers again; here the same would happen again, or be paid
again."""

_Endpoint = Callable[[Request], Awaitable[Response]]


def _error(
    status: int,
    message: str,
    code: str,
    *,
    param: str | None = None,
    retry_after: int | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    told = dict(headers or {})
    if retry_after is not None:
        told["Retry-After"] = str(retry_after)
    if code in _RETRY_IN_VAIN:
        told["X-Should-Retry"] = "false"
    body = error_body(status, message, code, param=param)
    return JSONResponse(body, status_code=status, headers=told)


async def _refused(_request: Request, error: Exception) -> Response:
    refusal = error
    assert isinstance(refusal, RequestRefusedError)  # noqa: S101 - what it is registered for
    return _error(
        refusal.status,
        refusal.message,
        refusal.code,
        param=refusal.param,
        retry_after=refusal.retry_after,
    )


async def _unroutable(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not allowed here; allowed: {allowed}"
        return _error(405, message, "method_not_allowed", headers={"Allow": allowed})
    return _error(error.status_code, str(error.detail), "not_found")


async def _broken(_request: Request, _failure: Exception) -> Response:
    return _error(500, "internal error; see the server's log", "internal_error")


def _generations(state: ServerState) -> _Endpoint:
    async def generations(request: Request) -> Response:
        state.request_began()
        identity = secrets.token_hex(8)
        try:
            response: Response = JSONResponse(await generate(request, state, identity))
        except RequestRefusedError as refusal:
            response = await _refused(request, refusal)
        except Exception as error:  # noqa: BLE001 - logged; the client gets no traceback
            _LOG.exception("request %s failed", identity)
            state.metrics.refused(Outcome.ERROR, HTTPStatus.INTERNAL_SERVER_ERROR)
            response = await _broken(request, error)
        finally:
            state.request_ended()
        response.headers["X-Request-Id"] = identity
        return response

    return generations


def _about_models(state: ServerState) -> list[Route]:
    name = state.settings.model_name

    def model() -> dict[str, Any]:
        rules = state.current_rules
        loaded = {} if rules is None else {"schedulers": list(rules.engine.schedulers)}
        return {"id": name, "object": "model", "created": 0, "owned_by": "imagegen", **loaded}

    def known(request: Request) -> None:
        asked = request.path_params["model"]
        if asked != name:
            raise HTTPException(404, f"there is no model {ascii(asked)[:100]}, but {name!r}")

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model()]})

    async def one(request: Request) -> Response:
        known(request)
        return JSONResponse(model())

    async def metadata(request: Request) -> Response:
        known(request)
        return JSONResponse({"name": name, "platform": "imagegen"})

    async def ready(request: Request) -> Response:
        known(request)
        return _health("ready", state.ready)

    return [
        _get("/v1/models", models),
        _get("/v1/models/{model:path}", one),
        _get("/v2/models/{model:path}/ready", ready),
        _get("/v2/models/{model:path}", metadata),
    ]


def _about_the_server(state: ServerState) -> list[Route]:
    async def server(_request: Request) -> Response:
        told: dict[str, Any] = {
            "name": "imagegen",
            "version": state.settings.revision,
            "extensions": [],
        }
        return JSONResponse(told)

    async def live(_request: Request) -> Response:
        return _health("live", state.alive)

    async def ready(_request: Request) -> Response:
        return _health("ready", state.ready)

    async def openapi(_request: Request) -> Response:
        return JSONResponse(document(state.settings, state.current_rules))

    return [
        _get("/v2", server),
        _get(contract.LIVE_PATH, live),
        _get(contract.READY_PATH, ready),
        metrics_route(state.metrics.registry),
        _get("/openapi.json", openapi),
    ]


def _get(path: str, endpoint: _Endpoint) -> Route:
    return Route(path, endpoint, methods=["GET"])


def _health(name: str, holds: bool) -> JSONResponse:  # noqa: FBT001 - the answer's one value
    return JSONResponse({name: holds}, status_code=200 if holds else 503)


def build_app(state: ServerState) -> Starlette:
    """Build the application of one server process."""
    generations = Route("/v1/images/generations", _generations(state), methods=["POST"])
    app = Starlette(
        routes=[generations, *_about_the_server(state), *_about_models(state)],
        middleware=[Middleware(EarlyAnswers)],
        exception_handlers={
            RequestRefusedError: _refused,
            HTTPException: _unroutable,
            Exception: _broken,
        },
    )
    app.router.redirect_slashes = False
    return app

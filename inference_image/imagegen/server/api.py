"""The HTTP API: OpenAI's image generations and the Open Inference Protocol's health paths."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from imagegen import contract
from imagegen.contract import Outcome
from imagegen.errors import RequestRefusedError
from imagegen.server.generation import generate
from imagegen.server.state import ServerState

__all__ = ["build_app"]

_LOG = logging.getLogger(__name__)
_SERVER_ERROR = 500


def _error(
    status: int, message: str, code: str, param: str | None = None, retry_after: int | None = None
) -> JSONResponse:
    kind = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    if code == "queue_full":
        kind = "rate_limit_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse(body, status_code=status, headers=headers)


def build_app(state: ServerState) -> FastAPI:
    """Build the application of one server process."""
    app = FastAPI(title="imagegen", docs_url=None, redoc_url=None, openapi_url=None)
    model = state.settings.model_name

    @app.exception_handler(RequestRefusedError)
    async def refused(_request: Request, refusal: RequestRefusedError) -> JSONResponse:
        return _error(
            refusal.status, refusal.message, refusal.code, refusal.param, refusal.retry_after
        )

    @app.exception_handler(HTTPException)
    async def unknown(_request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), "not_found")

    @app.post("/v1/images/generations")
    async def images(request: Request) -> JSONResponse:
        state.request_began()
        try:
            return JSONResponse(await generate(request, state))
        except RequestRefusedError:
            raise
        except Exception:  # noqa: BLE001 - logged; the client gets no traceback
            _LOG.exception("request failed")
            state.metrics.refused(Outcome.ERROR, _SERVER_ERROR)
            return _error(_SERVER_ERROR, "internal error; see the server's log", "internal_error")
        finally:
            state.request_ended()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": model, "object": "model", "created": 0, "owned_by": "imagegen"}
        return {"object": "list", "data": [entry]}

    @app.get("/v2")
    async def metadata() -> dict[str, Any]:
        return {"name": "imagegen", "version": state.settings.revision, "extensions": []}

    @app.get(contract.LIVE_PATH)
    async def live() -> dict[str, bool]:
        return {"live": True}

    async def ready() -> JSONResponse:
        return JSONResponse({"ready": state.ready}, status_code=200 if state.ready else 503)

    app.get(contract.READY_PATH)(ready)
    app.get(f"/v2/models/{model}/ready")(ready)
    return app

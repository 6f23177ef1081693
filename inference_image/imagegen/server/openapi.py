"""The API's own description, from the same rules that requests are checked by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from imagegen import contract
from imagegen.contract import BATCH_HEADER, TIMEOUT_HEADER
from imagegen.server.fields import FIXED, NOT_BLANK
from imagegen.server.settings import ServeSettings
from imagegen.server.validation import (
    LEAST_SIDE,
    MAX_SEED,
    NO_GUIDANCE,
    TIMEOUT_SECONDS,
    EngineRules,
    RequestRules,
)

__all__ = ["document"]

Schema = dict[str, Any]

_PNG: Final[Schema] = {
    "type": "string",
    "contentEncoding": "base64",
    "contentMediaType": "image/png",
}

_MOST_SIDES = 400
"""So many allowed sides are listed; of more, the description tells."""

_UNKNOWN: Final = EngineRules(
    size_multiple=1,
    max_side=99_999,
    takes_negative_prompt=True,
    negative_prompt_needs_guidance=False,
)
"""Of a model that is not loaded yet, the description allows whatever any model may."""

_ERRORS: Final = {
    "400": "A field or header is not allowed, or not with this value; `param` names it.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not plain JSON in UTF-8.",
    "429": "Too much waits already, or the image could not be ready in time (Retry-After).",
    "499": "The client went away; nobody sees this.",
    "500": "The image could not be made, or is broken and not delivered.",
    "503": "Not ready, stopping, too much to read, or no memory for such an image.",
    "504": "The image was not ready in time.",
}


def document(settings: ServeSettings, rules: RequestRules | None) -> Schema:
    """Describe the API in the form of OpenAPI 3.1.

    Parameters
    ----------
    settings
        What is declared.
    rules
        What the loaded model allows; None before it is loaded.
    """
    if rules is None:
        rules = RequestRules(settings.model_name, settings.defaults, settings.limits, _UNKNOWN)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imagegen",
            "version": settings.revision,
            "description": "Images from text, in the shape of the OpenAI images API.",
        },
        "paths": {
            "/v1/images/generations": {"post": _generations(rules)},
            "/v1/models": {"get": _get("List the one model.", "Models")},
            "/v1/models/{model}": {"get": _get("Describe a model.", "Model", named=True)},
            "/v2": {"get": _get("Describe the server.", "Server")},
            "/v2/models/{model}": {"get": _get("Describe a model.", "ModelMetadata", named=True)},
            contract.LIVE_PATH: {"get": _probe("Whether the process gets on with its work.")},
            contract.READY_PATH: {"get": _probe("Whether requests are taken.")},
            "/v2/models/{model}/ready": {"get": _probe("The same, of a model.", named=True)},
            contract.METRICS_PATH: {"get": _metrics()},
            "/openapi.json": {"get": _get("This description.", "Document")},
        },
        "components": {"schemas": _schemas(rules)},
    }


def _generations(rules: RequestRules) -> Schema:
    return {
        "operationId": "generate",
        "summary": "Make images.",
        "parameters": _headers(rules),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _reference("Request")}},
        },
        "responses": {
            "200": _json("The images.", "Answer"),
            **{status: _error(text) for status, text in _ERRORS.items()},
        },
    }


def _headers(rules: RequestRules) -> list[Schema]:
    return [
        {
            "name": BATCH_HEADER,
            "in": "header",
            "description": "Make the images in batches of exactly so many, filled up if need be "
            "and never with images of other requests: for comparisons, whatever the load.",
            "schema": {"type": "integer", "minimum": 1, "maximum": rules.max_pinned_batch},
        },
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "description": "Seconds that the client waits; the server's own limit holds too.",
            "schema": {
                "type": "number",
                "minimum": TIMEOUT_SECONDS[0],
                "maximum": TIMEOUT_SECONDS[1],
            },
        },
    ]


def _schemas(rules: RequestRules) -> Schema:
    text = {"type": "string"}
    number = {"type": "number"}
    whole = {"type": "integer"}
    model = {"id": text, "object": {"const": "model"}, "created": whole, "owned_by": text}
    schedulers = {
        "type": "array",
        "items": text,
        "description": "Samplers that a request may name, once the model is loaded.",
    }
    error = {
        "message": text,
        "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
        "param": {"type": ["string", "null"]},
        "code": text,
    }
    common = {
        "size": text,
        "steps": _or_null(whole),
        "guidance_scale": _or_null(number),
        "scheduler": _or_null(text),
    }
    image = {
        "b64_json": _PNG,
        "revised_prompt": {"type": "null"},
        "seed": _or_null(_range(0, MAX_SEED)),
        "batch_size": {"type": "integer", "minimum": 1},
        "batch_index": {"type": "integer", "minimum": 0},
        "degraded": {"type": "array", "items": {"enum": ["tiled"]}},
        **common,
    }
    answer = {
        "created": whole,
        "data": {"type": "array", "minItems": 1, "items": _object(image)},
        "background": {"const": "opaque"},
        "output_format": {"const": "png"},
        "batch_size": {"type": "integer", "minimum": 1},
        **common,
    }
    return {
        "Request": _request(rules),
        "Answer": _object(answer),
        "Error": _object({"error": _object(error)}),
        "Model": _object({**model, "schedulers": schedulers}, needed=tuple(model)),
        "Models": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": _reference("Model")}}
        ),
        "ModelMetadata": _object({"name": text, "platform": text}),
        "Server": _object(
            {"name": text, "version": text, "extensions": {"type": "array", "items": text}}
        ),
        "Health": _object({"live": {"type": "boolean"}, "ready": {"type": "boolean"}}, needed=()),
        "Document": {"type": "object"},
    }


def _request(rules: RequestRules) -> Schema:
    limits, engine = rules.limits, rules.engine
    low, high = rules.guidance
    prompt = _text(limits.max_prompt_characters)
    if engine.max_prompt_tokens is not None:  # no schema counts tokens
        prompt["description"] = f"At most {engine.max_prompt_tokens} tokens, or it is refused."
    fields: dict[str, Schema] = {
        "prompt": prompt,
        "model": {"const": rules.model_name},
        "n": _range(1, limits.max_images_per_request, default=1),
        "size": _size(rules),
        "user": _text(limits.max_user_characters),
        "negative_prompt": prompt,
        "num_inference_steps": _range(1, rules.max_steps, default=rules.defaults.steps),
        "guidance_scale": {"type": "number", "minimum": low, "maximum": high},
        "seed": {
            **_range(0, MAX_SEED),
            "description": "Image i has (seed + i) mod 2^32. Drawn when it is left out.",
        },
        "scheduler": _choice(engine.schedulers),
        "image": {
            "type": "string",
            "contentEncoding": "base64",
            "description": "The picture to enlarge: PNG, JPEG or WebP.",
        },
        **{
            name: {**_choice(fixed.allowed), "description": fixed.reason}
            for name, fixed in FIXED.items()
        },
    }
    if not rules.takes_negative_prompt:
        fields["negative_prompt"] = {**_choice(()), "description": "This model takes none."}
    for name in engine.unused_fields:
        fields[name] = {**_choice(()), "description": "The model is not told."}
    needed = ("prompt", "image") if rules.upscales else ("prompt",)
    request = _object(
        {name: fields[name] if name in needed else _or_null(fields[name]) for name in rules.fields},
        needed=needed,
    )
    if rules.takes_negative_prompt and engine.negative_prompt_needs_guidance:
        request["anyOf"] = [{"properties": {"negative_prompt": {"type": "null"}}}, _guided(rules)]
    return request


def _guided(rules: RequestRules) -> Schema:
    """Describe requests with so much guidance that a negative prompt has an effect."""
    guidance: Schema = {"type": "number", "exclusiveMinimum": NO_GUIDANCE}
    if rules.defaults.guidance_scale > NO_GUIDANCE:
        return {"properties": {"guidance_scale": _or_null(guidance)}}
    return {"properties": {"guidance_scale": guidance}, "required": ["guidance_scale"]}


def _size(rules: RequestRules) -> Schema:
    limits, engine = rules.limits, rules.engine
    if rules.upscales:
        return {"enum": ["auto"], "description": "It follows from the image."}
    longest = min(engine.max_side, int((limits.max_pixels * limits.max_aspect_ratio) ** 0.5))
    sides = range(LEAST_SIDE, longest + 1)
    allowed = [str(side) for side in sides if side % engine.size_multiple == 0]
    side = f"({'|'.join(allowed)})" if len(allowed) <= _MOST_SIDES else "[1-9][0-9]{0,4}"
    return {
        "type": "string",
        "pattern": f"^(auto|{side}x{side})$",
        "default": f"{rules.defaults.width}x{rules.defaults.height}",
        "description": f"Width x height: multiples of {engine.size_multiple}, at most "
        f"{limits.max_pixels} pixels in all, no side more than {limits.max_aspect_ratio:g} times "
        "the other.",
    }


def _probe(summary: str, *, named: bool = False) -> Schema:
    answer = _get(summary, "Health", named=named)
    answer["responses"]["503"] = _json("No.", "Health")
    return answer


def _metrics() -> Schema:
    answer = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {}}}}
    return {"summary": "The metrics.", "responses": {"200": answer}}


def _get(summary: str, schema: str, *, named: bool = False) -> Schema:
    operation: Schema = {"summary": summary, "responses": {"200": _json(summary, schema)}}
    if named:
        parameter = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [parameter]
        operation["responses"]["404"] = _error("There is no such model.")
    return operation


def _json(text: str, schema: str) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": _reference(schema)}}}


def _error(text: str) -> Schema:
    return _json(text, "Error")


def _reference(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(properties: Schema, *, needed: tuple[str, ...] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if needed is None else needed),
        "additionalProperties": False,
    }


def _text(most: int) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": most, "pattern": NOT_BLANK}


def _range(low: int, high: int, *, default: int | None = None) -> Schema:
    schema: Schema = {"type": "integer", "minimum": low, "maximum": high}
    return schema if default is None else {**schema, "default": default}


def _choice(allowed: Sequence[str | int]) -> Schema:
    return {"enum": list(allowed)} if allowed else {"type": "null"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}

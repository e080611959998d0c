"""The part of Qdrant's REST API that the store uses, answered by the client's own engine: what really goes over HTTP is
written and read as with a server, which this is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
from pydantic import BaseModel, TypeAdapter
from qdrant_client import models

from tests.datasources.qdrant_in_process import InProcess

Answer = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def over_http(engine: InProcess, keys: set[str]) -> Answer:
    """Answers requests; notes the keys that they have."""

    async def answer(request: httpx.Request) -> httpx.Response:
        keys.add(request.headers["api-key"])
        body = json.loads(request.content) if request.content else {}
        path = request.url.path.split("/")[2:]
        try:
            result = await _result(engine, request.method, path[0], "/".join(path[1:]), body)
        except ValueError as error:
            status = 404 if "not found" in str(error) else 409 if "already exists" in str(error) else 400
            return httpx.Response(status, json={"status": {"error": str(error)}, "time": 0.0})
        return httpx.Response(200, json={"result": _plain(result), "status": "ok", "time": 0.0})

    return answer


async def _result(engine: InProcess, method: str, name: str, what: str, body: dict[str, Any]) -> Any:
    match method, what:
        case "GET", "exists":
            return {"exists": await engine.collection_exists(name)}
        case "GET", "":
            return await engine.get_collection(name)
        case "PUT", "":
            return await engine.create_collection(name, models.CreateCollection(**body).vectors)
        case "DELETE", "":
            if not await engine.delete_collection(name):
                raise ValueError(f"Collection {name} not found")
            return True
        case "PUT", "index":
            return await engine.create_payload_index(
                name, body["field_name"], models.PayloadSchemaType(body["field_schema"])
            )
        case "PUT", "points":
            return await engine.upsert(name, models.PointsList(**body).points)
        case "POST", "points/delete":
            chosen: Any = TypeAdapter(models.PointsSelector).validate_python(body)
            return await engine.delete(name, chosen)
        case "POST", "points":
            asked = models.PointRequest(**body)
            return await engine.retrieve(name, asked.ids, with_payload=True)
        case "POST", "points/scroll":
            page = models.ScrollRequest(**body)
            points, after = await engine.scroll(name, limit=page.limit or 10, offset=page.offset, with_payload=True)
            return {"points": points, "next_page_offset": after}
        case "POST", "points/query":
            query = models.QueryRequest(**body)
            return await engine.query_points(
                name, query=query.query, query_filter=query.filter, limit=query.limit or 10, with_payload=True
            )
    raise ValueError(f"no such request here: {method} {what}")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value

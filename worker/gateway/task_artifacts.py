"""A file that a task has made, through the gateway: for those who cannot reach the store themselves."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from worker.artifacts import ArtifactsFailed
from worker.gateway.operation import Call
from worker.gateway.ownership import owned_status
from worker.gateway.problem import Problem


async def artifact_of_task(call: Call) -> Response:
    """The file's bytes, always as a download: a browser shall not run what a model wrote.

    Raises `TaskNotFound`, and `Problem` 404 for a file that the task has not made, or that this gateway cannot reach.
    """
    task_id, name = call.path["id"], call.path["name"]
    gateway, status = call.gateway, await owned_status(call, task_id)
    result = status.result
    if result is None:
        [result] = await gateway.backend.queue.results([task_id])
    url = None if result is None else result.artifacts.get(name)
    if url is None:
        raise Problem(404, f"task {task_id} has no artifact {name[:100]!r}", code="artifact_not_found")
    if gateway.artifacts is None or not gateway.artifacts.owns(url):
        raise Problem(
            404,
            f"artifact {name[:100]!r} is not in a store that this gateway reads: set AGENT_ARTIFACT_STORE_URL as the "
            "workers have it",
            code="artifact_elsewhere",
        )
    try:
        file = await gateway.artifacts.open(url, gateway.settings.artifacts.max_file_bytes)
    except ArtifactsFailed as error:
        raise Problem(502, str(error), code="artifact_store") from error
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Length": str(file.size),
    }
    return StreamingResponse(file.parts(), media_type="application/octet-stream", headers=headers)

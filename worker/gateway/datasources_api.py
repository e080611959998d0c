"""Data sources over HTTP: `/v1/datasources`, their documents, and questions to them.

They are declared as agents and apps are (`worker.gateway.admin_api`). A caller that may use agents may ask what its
agents and apps search; administrators of a namespace may also fill what is their namespace's own.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from worker.datasources.documents import MOST_TITLE_CHARS, Document, heading_of
from worker.datasources.embedding_call import Behalf
from worker.datasources.errors import IngestFailed, QueryFailed
from worker.datasources.ingesting import IngestReport
from worker.datasources.model import Datasource
from worker.datasources.passages import EVERYTHING, DocumentHead, Passage, PassageFilter, StoreSize
from worker.datasources.reading.html import html_text
from worker.gateway.admin_api import delete as delete_object
from worker.gateway.admin_api import operations_of
from worker.gateway.admin_requests import Kind, Where
from worker.gateway.admin_rights import namespace_for
from worker.gateway.admin_views import visible
from worker.gateway.caller import Scope
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.problem import Problem
from worker.objects import Stored

MOST_DOCUMENTS = 100
"""In one request."""
MOST_BODY_BYTES = 16 * 1024 * 1024
_TAG = "Data sources"
_KIND = Kind("datasource", "datasources", Datasource, _TAG)

_Text = Annotated[str, Meta(max_length=8_000_000)]
_Id = Annotated[str, Meta(min_length=1, max_length=1000)]


class DocumentText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document to take in."""

    id: _Id
    """One of the same id is replaced."""
    text: _Text
    title: Annotated[str, Meta(max_length=200)] = ""
    format: Literal["markdown", "text", "html"] = "markdown"
    metadata: dict[str, str] = {}
    """Told with each passage, and searched with `filter`."""


class Documents(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Documents to take in; those that have not changed are left alone."""

    documents: Annotated[tuple[DocumentText, ...], Meta(min_length=1, max_length=MOST_DOCUMENTS)]


class Question(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to look for."""

    query: Annotated[str, Meta(min_length=1, max_length=32_000)]
    max_results: Annotated[int, Meta(ge=0, le=100)] = 0
    """0 means 5."""
    threshold: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    """Only passages with at least this score, if it is above 0."""
    filter: PassageFilter = EVERYTHING


class Passages(Struct, frozen=True, kw_only=True):
    """What was found, the best first."""

    passages: list[Passage]


class Listing(Where, frozen=True, kw_only=True):
    """Which documents to list."""

    prefix: str = ""
    after: str = ""
    """Only those whose id comes behind this one."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class DocumentPage(Struct, frozen=True, kw_only=True):
    """Documents by id."""

    items: list[DocumentHead]
    size: StoreSize
    """Of the whole data source."""
    next: str = field(default="")
    """Go on `after` this one; empty: there are no more."""


async def query(call: Call) -> Passages:
    """The passages nearest to a question."""
    source, asked = _seen(call), call.body
    try:
        found = await call.gateway.datasources.query(
            source.value.slug,
            asked.query,
            namespace=source.value.namespace,
            max_results=asked.max_results,
            threshold=asked.threshold,
            where=asked.filter,
            behalf=_behalf(call),
        )
    except QueryFailed as error:
        raise _told(error, error.retryable, "query_failed") from error
    return Passages(passages=found)


async def ingest(call: Call) -> IngestReport:
    """Take documents in."""
    source = _own(call)
    documents = await asyncio.to_thread(lambda: [_document(each) for each in call.body.documents])
    try:
        return await call.gateway.datasources.ingest(
            source.value.slug, documents, namespace=source.value.namespace, behalf=_behalf(call)
        )
    except IngestFailed as error:
        raise _told(error, error.retryable, "ingest_failed") from error


async def list_documents(call: Call) -> DocumentPage:
    """What was taken in."""
    source, asked, there = _own(call), call.query, call.gateway.datasources
    slug, namespace = source.value.slug, source.value.namespace
    found = await there.documents(
        slug, namespace=namespace, prefix=asked.prefix, after=asked.after, limit=asked.limit + 1
    )
    items = found[: asked.limit]
    return DocumentPage(
        items=items,
        size=await there.size(slug, namespace=namespace),
        next=items[-1].id if len(found) > len(items) else "",
    )


async def remove(call: Call) -> Answer:
    """Delete one document."""
    source, each = _own(call), call.path["id"]
    if not await call.gateway.datasources.remove(source.value.slug, [each], namespace=source.value.namespace):
        raise Problem(404, f"there is no document {each[:100]!r} in this data source", code="document_not_found")
    return Answer(status=204)


async def delete(call: Call) -> Answer:
    """Delete a data source that nothing refers to, with its passages."""
    namespace = namespace_for(call.caller, call.query.namespace)
    source = _KIND.registrar(call).known(call.path["slug"], namespace)
    answer = await delete_object(_KIND, call)
    await call.gateway.datasources.forget(source)
    return answer


def _seen(call: Call) -> Stored[Datasource]:
    """The data source that the caller means, if it may ask it. Raises `Problem` 404."""
    namespace = namespace_for(call.caller, call.query.namespace)
    slug = call.path["slug"]
    known = [each for each in visible(call.gateway, "datasource", call.caller) if each.value.slug == slug]
    for wanted in (namespace, ""):
        for each in known:
            if each.value.namespace == wanted:
                return each
    raise Problem(404, f"datasource not found: {slug[:100]!r}", code="datasource_not_found")


def _own(call: Call) -> Stored[Datasource]:
    """The data source that an administrator means, if its documents are his. Raises `Problem` 403 or 404."""
    if call.caller.app:
        raise Problem(403, f"this key belongs to app {call.caller.app!r}: it changes nothing", code="access_denied")
    source = _seen(call)
    if call.caller.tenant and source.value.namespace != call.caller.tenant:
        raise Problem(403, f"data source {source.value.slug!r} is everybody's, and not yours", code="access_denied")
    return source


def _behalf(call: Call) -> Behalf:
    return Behalf(tenant=call.caller.tenant)


def _document(given: DocumentText) -> Document:
    title, text = given.title, given.text
    if given.format == "html":
        found, text = html_text(text)
        title = title or found[:MOST_TITLE_CHARS]
    title = title or (heading_of(text) if given.format != "text" else "")
    return Document(id=given.id, text=text, title=title, metadata=given.metadata, has_headings=given.format != "text")


def _told(error: Exception, is_retryable: bool, code: str) -> Problem:
    from worker.log import mask_text

    return Problem(503 if is_retryable else 422, mask_text(str(error)), code=code)


def _operation(method: str, path: str, handler: Any, summary: str, **more: Any) -> Operation:
    given: dict[str, Any] = {"scope": Scope.ADMIN, "query": Where, "tag": _TAG, **more}
    return Operation(method=method, path=f"/v1/datasources/{{slug}}{path}", handler=handler, summary=summary, **given)


OPERATIONS: tuple[Operation, ...] = (
    *(operation for operation in operations_of(_KIND) if operation.method != "DELETE"),
    _operation("DELETE", "", delete, "Delete a data source with its passages", status=204, errors=(404, 409, 412)),
    _operation(
        "POST",
        "/query",
        query,
        "Ask a data source",
        scope=Scope.AGENTS_USE,
        body=Question,
        result=Passages,
        errors=(404, 409, 415, 422),
    ),
    _operation(
        "GET", "/documents", list_documents, "List documents", query=Listing, result=DocumentPage, errors=(404, 409)
    ),
    _operation(
        "POST",
        "/documents",
        ingest,
        "Take documents in",
        body=Documents,
        result=IngestReport,
        errors=(404, 409, 415, 422),
        max_body_bytes=MOST_BODY_BYTES,
    ),
    _operation("DELETE", "/documents/{id:path}", remove, "Delete a document", status=204, errors=(404, 409)),
)

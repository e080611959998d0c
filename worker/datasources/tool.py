"""`search_<slug>`: how a model searches a data source that its agent is bound to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from queue_backends import QueueError
from worker.datasources.embedding_call import Behalf
from worker.datasources.errors import DatasourceError
from worker.datasources.model import Datasource
from worker.datasources.passages import Passage
from worker.datasources.search_spec import search_spec, tool_name
from worker.errors import ToolCallFailed
from worker.tools.interfaces import Tool, ToolContext, ToolResult

if TYPE_CHECKING:
    from worker.datasources.datasources import Datasources
    from worker.definitions import Definitions
    from worker.objects import Stored


class SearchDatasource:
    """The tool for data sources of one slug: which of them is meant, and whether it may be searched, the run tells."""

    after_timeout = "nothing was changed"

    def __init__(self, datasources: Datasources, source: Datasource) -> None:
        self.spec = search_spec(source)
        self._datasources = datasources

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """The passages as text, and as a JSON value. Raises `ToolCallFailed`."""
        source = next((each for each in context.datasources if tool_name(each.slug) == self.spec.name), None)
        if source is None:
            raise ToolCallFailed(f"{self.spec.name}: datasource not allowed for this agent")
        behalf = Behalf(
            task_id=context.task_id,
            call_id=context.call_id,
            agent=context.agent,
            tenant=context.tenant,
            session_id=context.session_id,
        )
        try:
            found = await self._datasources.query(
                source.slug,
                arguments["question"],
                namespace=source.namespace,
                max_results=int(arguments.get("max_results", 0)),
                behalf=behalf,
            )
        except (DatasourceError, QueueError) as error:
            raise ToolCallFailed(f"{self.spec.name}: {error}") from error
        return ToolResult(text=as_text(found), structured={"passages": [_plain(passage) for passage in found]})


class DatasourceTools:
    """One tool for each slug of a data source there is; it comes and goes with them."""

    name = "datasources"

    def __init__(self, definitions: Definitions, datasources: Datasources) -> None:
        self._datasources = datasources
        self._counts: dict[str, int] = {}
        self._by_slug: dict[str, Tool] = {}
        self._tools: tuple[Tool, ...] | None = None
        for stored in definitions.datasources.all():
            self._changed(None, stored)
        self.close = definitions.datasources.on_change(self._changed)

    def tools(self) -> Sequence[Tool]:
        """All of them; what a model is told of one is its own data source's (`ResolvedAgent.tool_specs`)."""
        if self._tools is None:
            self._tools = tuple(self._by_slug.values())
        return self._tools

    def problem(self) -> str:
        """There is none: nothing is connected to."""
        return ""

    async def first_attempt(self) -> None:
        """Nothing is attempted."""

    async def serve(self) -> None:
        """Nothing to keep."""
        await asyncio.Event().wait()

    def _changed(self, before: Stored[Datasource] | None, after: Stored[Datasource] | None) -> None:
        if (before is None) is (after is None):
            return  # its tool is the same
        if after is not None:
            slug = after.value.slug
            self._counts[slug] = self._counts.get(slug, 0) + 1
            if slug in self._by_slug:
                return
            self._by_slug[slug] = SearchDatasource(self._datasources, Datasource(slug=slug))
        elif before is not None:
            slug = before.value.slug
            self._counts[slug] -= 1
            if self._counts[slug]:
                return
            del self._counts[slug], self._by_slug[slug]
        self._tools = None


def as_text(found: Sequence[Passage]) -> str:
    """For a model to read, and to quote from."""
    if not found:
        return "nothing was found"
    return "\n\n".join(f"[{number}] {_origin(passage)}\n{passage.content}" for number, passage in enumerate(found, 1))


def _origin(passage: Passage) -> str:
    told = passage.metadata
    names = [told.get("document", "")]
    names += [told[name] for name in ("title", "heading") if told.get(name) and told[name] not in names]
    return f"{' | '.join(name for name in names if name)} (score {passage.score:.2f})"


def _plain(passage: Passage) -> dict[str, Any]:
    return {"content": passage.content, "score": passage.score, "metadata": passage.metadata}

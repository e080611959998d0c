"""`shoal datasource ingest` and the like: documents into a data source, questions to it, documents out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.failures import FAILED, NOT_FOUND, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Column, clean
from worker.cli.wording import count, moment, shorten

if TYPE_CHECKING:
    from worker.agents.declarations import Declarations
    from worker.datasources.datasources import Datasources
    from worker.datasources.documents import Document
    from worker.datasources.ingesting import IngestReport
    from worker.datasources.reading import Found

_NAMESPACE = click.option(
    "--namespace", default="", metavar="SLUG", help="Whose it is: a tenant.  [default: everybody's]"
)
_SHOWN_SKIPPED = 10


@click.command(
    "ingest",
    help="Take files and folders into a data source. Files that have not changed since are left alone, so it can be "
    "done again and again, and goes on where it was interrupted. Reads text, Markdown, HTML, JSON, JSON lines, CSV, "
    "and PDF with pypdf.\n\n"
    + examples(
        "shoal datasource ingest manuals ./docs",
        "shoal datasource ingest manuals ./docs --prune --exclude 'drafts/' --exclude '*.tmp.md'",
        "shoal datasource ingest code ./src --include '*.py'",
    ),
)
@click.argument("slug")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--prune", is_flag=True, help="Delete documents of these folders whose file is gone.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out, as .gitignore does. Repeatable.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Also read such files, as text. Repeatable.")
@click.option("--as", "name", default="", metavar="NAME", help="What ids begin with.  [default: the folder's name]")
@_NAMESPACE
@shoal_options
def ingest(
    call: Invocation,
    slug: str,
    paths: tuple[Path, ...],
    prune: bool,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    name: str,
    namespace: str,
) -> int:
    """Exit code 1 if some files could not be read, 4 if there is no such data source."""
    from worker.datasources.reading import found_under

    found = found_under(paths, exclude=exclude, include=include, name=name)
    if prune and not found.prefixes:
        raise click.UsageError("--prune needs a folder: files alone do not tell what is gone")
    return call.wait_for(_ingest(call, slug, namespace, found, prune=prune))


@click.command(
    "query",
    help="Show the passages of a data source that are nearest to a text, the best first.\n\n"
    + examples(
        "shoal datasource query manuals 'How is the filter changed?'", "shoal datasource query manuals 'E42' -n 1"
    ),
)
@click.argument("slug")
@click.argument("text")
@click.option("-n", "--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="At most so many.")
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.0, help="Only those with at least this score.")
@click.option("--prefix", default="", help="Only documents whose id begins so.")
@_NAMESPACE
@shoal_options
def query(call: Invocation, slug: str, text: str, limit: int, threshold: float, prefix: str, namespace: str) -> int:
    """One JSON document for each passage with --json."""
    return call.wait_for(_query(call, slug, namespace, text, limit, threshold, prefix))


@click.command(
    "documents",
    help="List the documents of a data source by id.\n\n"
    + examples("shoal datasource documents manuals", "shoal datasource documents manuals --prefix docs/ --json"),
)
@click.argument("slug")
@click.option("--prefix", default="", help="Only those whose id begins so.")
@click.option("--after", default="", metavar="ID", help="Only those behind this one.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@_NAMESPACE
@shoal_options
def list_documents(call: Invocation, slug: str, prefix: str, after: str, limit: int, namespace: str) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call, slug, namespace, prefix, after, limit))


@click.command(
    "remove",
    help="Delete documents of a data source by id. The data source stays.\n\n"
    + examples("shoal datasource remove manuals docs/old.md", "shoal datasource remove manuals --all"),
)
@click.argument("slug")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "is_all", is_flag=True, help="All documents.")
@_NAMESPACE
@shoal_options
def remove(call: Invocation, slug: str, ids: tuple[str, ...], is_all: bool, namespace: str) -> int:
    """Exit code 4 if one of them is not there."""
    if bool(ids) is is_all:
        raise click.UsageError("name the documents, or say --all")
    return call.wait_for(_remove(call, slug, namespace, ids))


@click.command(
    "delete",
    help="Delete a data source that nothing else refers to, with all its passages. Exit code 4 if there is none.\n\n"
    + examples("shoal datasource delete manuals"),
)
@click.argument("slug")
@_NAMESPACE
@click.option("--expect", "version", type=int, metavar="VERSION", help="Only if it is at this version still.")
@shoal_options
def delete(call: Invocation, slug: str, namespace: str, version: int | None) -> int:
    """Exit code 1 if others refer to it, or it is at another version."""
    return call.wait_for(_delete(call, slug, namespace, version))


@asynccontextmanager
async def _opened(call: Invocation) -> AsyncIterator[tuple[Datasources, Declarations]]:
    from worker.agents.declarations import Declarations
    from worker.datasources.opening import open_datasources
    from worker.definitions import Definitions
    from worker.live_settings import LiveSettings

    settings = call.settings()
    async with call.fleet(settings) as fleet:
        state = fleet.backend.state
        live, definitions = LiveSettings(state), Definitions(state)
        await live.load()
        await definitions.load()
        async with open_datasources(settings, state, live, definitions) as datasources:
            yield datasources, Declarations(definitions, settings=settings, live=live, is_followed=False)


async def _ingest(call: Invocation, slug: str, namespace: str, found: Found, *, prune: bool) -> int:
    skipped = dict(found.skipped)
    progress = _Progress(call, len(found.files))
    async with _opened(call) as (datasources, _):
        try:
            report = await datasources.ingest(
                slug, _documents(found, skipped), namespace=namespace, progress=progress.show
            )
            if prune:
                kept = {file.id for file in found.files}
                report.deleted = await datasources.prune(
                    slug, found.prefixes, kept, spared=found.unseen, namespace=namespace
                )
        except (asyncio.CancelledError, Exception):
            progress.end()
            if progress.last is not None:
                call.screen.note(f"{_told(progress.last)}; do it again to go on from here", "warn")
            raise
    progress.end()
    _show_report(call, report, skipped)
    return FAILED if len(skipped) > len(found.skipped) else OK


async def _documents(found: Found, skipped: dict[str, str]) -> AsyncIterator[Document]:
    from worker.datasources.reading import Skipped, document_of

    for file in found.files:
        try:
            document = await asyncio.to_thread(document_of, file.path, file.id)
        except Skipped as why:
            skipped[str(file.path)] = str(why)
        else:
            yield document


class _Progress:
    """A line on the terminal that tells how far it is."""

    def __init__(self, call: Invocation, files: int) -> None:
        self._screen = call.screen
        self._files = files
        self._is_shown = False
        self.last: IngestReport | None = None

    def show(self, report: IngestReport) -> None:
        """Write it anew."""
        self.last = report
        if self._screen.fancy_notes:
            self._is_shown = True
            self._screen.err.write(f"\r\x1b[K{count(report.documents)} of {count(self._files)} files · {_told(report)}")
            self._screen.err.flush()

    def end(self) -> None:
        """Take it away."""
        if self._is_shown:
            self._is_shown = False
            self._screen.err.write("\r\x1b[K")
            self._screen.err.flush()


def _told(report: IngestReport) -> str:
    parts = [
        f"{count(report.added)} added",
        f"{count(report.replaced)} replaced",
        f"{count(report.unchanged)} unchanged",
    ]
    if report.deleted:
        parts.append(f"{count(report.deleted)} deleted")
    return f"{', '.join(parts)}, {count(report.passages)} passages stored"


def _show_report(call: Invocation, report: IngestReport, skipped: dict[str, str]) -> None:
    screen = call.screen
    if screen.as_json:
        import msgspec

        screen.json({**msgspec.to_builtins(report), "skipped": skipped})
        return
    screen.line(_told(report))
    for each in report.empty[:_SHOWN_SKIPPED]:
        screen.note(f"{clean(each)}: no text was found in it", "warn")
    for path, why in list(skipped.items())[:_SHOWN_SKIPPED]:
        screen.note(f"{clean(path)}: skipped: {clean(why)}", "warn")
    if len(skipped) > _SHOWN_SKIPPED:
        screen.note(f"and {count(len(skipped) - _SHOWN_SKIPPED)} more are skipped (--json shows all)", "warn")


async def _query(
    call: Invocation, slug: str, namespace: str, text: str, limit: int, threshold: float, prefix: str
) -> int:
    from worker.datasources.passages import PassageFilter

    async with _opened(call) as (datasources, _):
        found = await datasources.query(
            slug,
            text,
            namespace=namespace,
            max_results=limit,
            threshold=threshold,
            where=PassageFilter(prefix=prefix),
        )
    screen = call.screen
    for number, passage in enumerate(found, 1):
        if screen.as_json:
            screen.json(passage)
            continue
        told = passage.metadata
        heading = f"  {clean(told['heading'])}" if told.get("heading") else ""
        screen.write(f"{number}. {clean(told.get('document', ''))}", "bold")
        screen.line(f"  {passage.score:.3f}{heading}", "dim")
        screen.line(f"   {shorten(' '.join(clean(passage.content).split()), 400)}")
    if not found and not screen.as_json:
        screen.note("nothing was found")
    return OK


async def _list(call: Invocation, slug: str, namespace: str, prefix: str, after: str, limit: int) -> int:
    async with _opened(call) as (datasources, _):
        found = await datasources.documents(slug, namespace=namespace, prefix=prefix, after=after, limit=limit)
        size = await datasources.size(slug, namespace=namespace)
    if call.screen.as_json:
        for head in found:
            call.screen.json(head)
        return OK
    columns = (
        Column("document", wide=True),
        Column("title", wide=True),
        Column("passages", right=True),
        Column("characters", right=True),
        Column("stored", style="dim"),
    )
    rows = [(head.id, head.title, count(head.passages), count(head.chars), moment(head.updated_at)) for head in found]
    call.screen.table(columns, rows, empty=f"no documents: shoal datasource ingest {slug} PATH")
    if len(found) < size.documents:
        call.screen.note(f"{count(len(found))} of {count(size.documents)} are shown (--limit, --after, --prefix)")
    return OK


async def _remove(call: Invocation, slug: str, namespace: str, ids: Sequence[str]) -> int:
    async with _opened(call) as (datasources, _):
        if ids:
            removed = await datasources.remove(slug, ids, namespace=namespace)
        else:
            removed = (await datasources.size(slug, namespace=namespace)).documents
            await datasources.clear(slug, namespace=namespace)
    if call.screen.as_json:
        call.screen.json({"removed": removed})
    else:
        call.screen.line(f"{count(removed)} documents are removed")
    return OK if removed >= len(set(ids)) else NOT_FOUND


async def _delete(call: Invocation, slug: str, namespace: str, version: int | None) -> int:
    async with _opened(call) as (datasources, declared):
        gone = await declared.datasources.delete(slug, namespace, expected_version=version)
        await datasources.forget(gone)
    if call.screen.as_json:
        call.screen.json(gone)
    else:
        call.screen.line(f"datasource {gone.value.slug} is deleted (version {gone.version})")
    return OK

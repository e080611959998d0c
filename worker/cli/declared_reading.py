"""`apply`, `list`, `show` and `versions` of declared objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.declared_kind import NAMESPACE, Kind, declarations_of, user, warn
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.wording import count, moment

if TYPE_CHECKING:
    from worker.agents.declarations import Declarations
    from worker.objects import Stored


def apply_command(kind: Kind) -> click.Command:
    @click.command(
        "apply",
        help="Make objects be as YAML files have them: one document for each, with its kind (Agent, App, Llm, Group, "
        "Datasource). Says what was created, changed or left as it was. Doing it again does no harm.\n\n"
        + examples(f"shoal {kind.noun} apply {kind.plural}.yaml", f"shoal {kind.noun} apply team/*.yaml --json"),
    )
    @click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
    @NAMESPACE
    @shoal_options
    def apply(call: Invocation, files: tuple[Path, ...], namespace: str) -> int:
        """Exit code 2 if a document cannot be an object."""
        return call.wait_for(_applied(call, files, namespace))

    return apply


async def _applied(call: Invocation, files: Sequence[Path], namespace: str) -> int:
    from worker.agents.manifest import apply_documents, read_documents

    documents = [document for path in files for document in read_documents(path)]
    async with declarations_of(call) as there:
        for done in await apply_documents(documents, there, by=user(), namespace=namespace):
            if call.screen.as_json:
                call.screen.json(done)
            else:
                of = f" of {done.namespace}" if done.namespace else ""
                call.screen.line(f"{done.kind.lower()} {done.slug}{of} {done.outcome} (version {done.version})")
            warn(call, done.warnings)
    return OK


def list_command(kind: Kind) -> click.Command:
    @click.command(
        "list",
        help=f"List the {kind.plural}, the newest first.\n\n"
        + examples(f"shoal {kind.noun} list", f"shoal {kind.noun} list --text support --json"),
    )
    @click.option("--namespace", metavar="SLUG", help="Those of this tenant, and everybody's.")
    @click.option("--active/--inactive", "is_active", default=None, help="Only those that are switched on, or off.")
    @click.option("--app", default="", metavar="SLUG", help="Only those of this app.", hidden=kind.noun != "agent")
    @click.option("--plugin", default="", metavar="ID", help="Only those of this plugin.", hidden=kind.noun != "agent")
    @click.option("--text", default="", help="Only those with this in slug, name or description.")
    @click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="Which page.")
    @click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="So many on a page.")
    @shoal_options
    def list_objects(call: Invocation, page: int, limit: int, **wanted: Any) -> int:
        """One table, or one JSON document a line."""
        return call.wait_for(_listed(call, kind, wanted, page, limit))

    return list_objects


async def _listed(call: Invocation, kind: Kind, wanted: dict[str, Any], page: int, limit: int) -> int:
    from worker.agents.listing import Wanted, fits, page_of

    async with declarations_of(call) as there:
        await there.definitions.load()
        found = [stored for stored in _all(call, kind, there) if fits(stored.value, Wanted(**wanted))]
    shown = page_of(found, page=page, limit=limit)
    if call.screen.as_json:
        for stored in shown.items:
            call.screen.json(stored)
        return OK
    columns = (Column(kind.noun), Column("of"), Column("name", wide=True), *kind.columns, Column(""), Column("version"))
    rows = [
        (
            stored.value.slug,
            stored.value.namespace,
            stored.value.name,
            *kind.cells(stored.value),
            Cell("", "dim") if getattr(stored.value, "is_active", True) else Cell("off", "warn"),
            count(stored.version) if stored.updated_at else Cell("settings", "dim"),
        )
        for stored in shown.items
    ]
    call.screen.table(columns, rows, empty=f"no {kind.plural}: shoal {kind.noun} create")
    if shown.total > len(shown.items):
        call.screen.note(f"{count(len(shown.items))} of {count(shown.total)} are shown (--page, --limit)")
    return OK


def _all(call: Invocation, kind: Kind, there: Declarations) -> Sequence[Stored[Any]]:
    if kind.noun == "agent":
        from worker.agents.roster import Roster

        return Roster(call.settings(), there.definitions).all()
    found: Sequence[Stored[Any]] = getattr(there.definitions, kind.plural).all()
    return found


def show_command(kind: Kind) -> click.Command:
    @click.command(
        "show",
        help=f"Show {kind.noun_with_article} as YAML that `apply` takes. Exit code 4 if there is none.\n\n"
        + examples(f"shoal {kind.noun} show support", f"shoal {kind.noun} show support > support.yaml"),
    )
    @click.argument("slug")
    @NAMESPACE
    @shoal_options
    def show(call: Invocation, slug: str, namespace: str) -> int:
        """As it is stored now."""
        return call.wait_for(_shown(call, kind, slug, namespace))

    return show


async def _shown(call: Invocation, kind: Kind, slug: str, namespace: str) -> int:
    async with declarations_of(call) as there:
        stored = await kind.registrar(there).get(slug, namespace)
    if call.screen.as_json and not call.screen.as_yaml:
        call.screen.json(stored)
        return OK
    import msgspec
    import yaml

    by = f" by {stored.updated_by}" if stored.updated_by else ""
    call.screen.line(f"# id {stored.id}, version {stored.version} of {moment(stored.updated_at)}{by}", "dim")
    plain = {"kind": kind.noun.capitalize(), **msgspec.to_builtins(stored.value)}
    call.screen.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))
    return OK


def versions_command(kind: Kind) -> click.Command:
    @click.command(
        "versions",
        help=f"List what {kind.noun_with_article} was, the newest first; also of a deleted one.\n\n"
        + examples(f"shoal {kind.noun} versions support", f"shoal {kind.noun} versions support --json"),
    )
    @click.argument("slug")
    @NAMESPACE
    @click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
    @shoal_options
    def versions(call: Invocation, slug: str, namespace: str, limit: int) -> int:
        """One table, or one JSON document a line. Exit code 4 if there never was one."""
        return call.wait_for(_listed_versions(call, kind, slug, namespace, limit))

    return versions


async def _listed_versions(call: Invocation, kind: Kind, slug: str, namespace: str, limit: int) -> int:
    async with declarations_of(call) as there:
        found = await kind.registrar(there).versions(slug, namespace, limit=limit)
    if call.screen.as_json:
        for stored in found:
            call.screen.json(stored)
        return OK
    columns = (Column("version", right=True), Column("of"), Column("by"), Column("changed", wide=True))
    rows = [
        (count(stored.version), moment(stored.updated_at), stored.updated_by, _differences(before, stored))
        for stored, before in zip(found, [*found[1:], None], strict=True)
    ]
    call.screen.table(columns, rows)
    return OK


def _differences(before: Stored[Any] | None, after: Stored[Any]) -> str:
    if before is None or before.id != after.id:
        return "created" if after.version == 1 or before is not None else ""
    names = [name for name in after.value.__struct_fields__ if _differs(before, after, name)]
    return ", ".join(names)


def _differs(before: Stored[Any], after: Stored[Any], name: str) -> bool:
    return bool(getattr(before.value, name) != getattr(after.value, name))

"""The commands that all kinds of declared objects have: apply, list, show, create, update, delete, and so on."""

from __future__ import annotations

from typing import Any

import click

from worker.cli.declared_fields import fields_of, with_flags
from worker.cli.declared_kind import EXPECT, NAMESPACE, Kind, declarations_of, say, user, warn
from worker.cli.declared_reading import apply_command, list_command, show_command, versions_command
from worker.cli.invocation import Invocation, examples, shoal_options


def declared_group(kind: Kind, summary: str) -> click.Group:
    """`shoal agent`, and the like for other kinds."""
    group = click.Group(kind.noun, help=summary)
    for make in (apply_command, list_command, show_command, _create, _update, _delete, versions_command, _rollback):
        group.add_command(make(kind))
    if kind.switches:
        group.add_command(_switch(kind, on=True))
        group.add_command(_switch(kind, on=False))
    return group


def _create(kind: Kind) -> click.Command:
    @click.command(
        "create",
        help=f"Make {kind.noun_with_article}, in all processes within a second.\n\n"
        + examples(f"shoal {kind.noun} create {kind.example}"),
    )
    @click.argument("slug")
    @NAMESPACE
    @with_flags(kind.flags)
    @shoal_options
    def create(call: Invocation, slug: str, namespace: str, **given: Any) -> int:
        """Exit code 2 if it cannot be one, 1 if there is one of that slug."""
        fields = {"namespace": namespace, **fields_of(kind.flags, given, before={})}
        return call.wait_for(_created(call, kind, slug, fields))

    return create


async def _created(call: Invocation, kind: Kind, slug: str, fields: dict[str, Any]) -> int:
    async with declarations_of(call) as there:
        registrar = kind.registrar(there)
        warn(call, await registrar.warnings(registrar.read({"slug": slug, **fields})))
        return say(call, kind, "created", await registrar.create(slug, by=user(), **fields))


def _update(kind: Kind) -> click.Command:
    @click.command(
        "update",
        help=f"Change {kind.noun_with_article}: the given fields, and no others. A list is replaced as a whole. What "
        "runs already goes on as it began.\n\n"
        + examples(f"shoal {kind.noun} update {kind.example}", f"shoal {kind.noun} update support --clear description"),
    )
    @click.argument("slug")
    @NAMESPACE
    @with_flags(kind.flags)
    @click.option("--clear", multiple=True, metavar="FIELD", help="Set a field back to its default. Repeatable.")
    @EXPECT
    @shoal_options
    def update(
        call: Invocation, slug: str, namespace: str, clear: tuple[str, ...], version: int | None, **given: Any
    ) -> int:
        """Exit code 2 if it cannot be so, 4 if there is none, 1 if it is at another version."""
        return call.wait_for(_updated(call, kind, slug, namespace, clear, version, given))

    return update


async def _updated(
    call: Invocation,
    kind: Kind,
    slug: str,
    namespace: str,
    clear: tuple[str, ...],
    version: int | None,
    given: dict[str, Any],
) -> int:
    import msgspec

    async with declarations_of(call) as there:
        registrar = kind.registrar(there)
        before = await registrar.get(slug, namespace)
        plain: dict[str, Any] = msgspec.to_builtins(before.value)
        if unknown := sorted(set(clear) - set(registrar.type.__struct_fields__)):
            known = ", ".join(registrar.type.__struct_fields__)
            raise click.UsageError(f"--clear {unknown[0]}: there is no such field; there are {known}")
        kept = {name: value for name, value in plain.items() if name not in clear}
        new = registrar.read({**kept, **fields_of(kind.flags, given, before=kept)})
        warn(call, await registrar.warnings(new))
        after = await registrar.update(new, expected_version=before.version if version is None else version, by=user())
    return say(call, kind, "unchanged" if after.version == before.version else "changed", after)


def _delete(kind: Kind) -> click.Command:
    @click.command(
        "delete",
        help=f"Delete {kind.noun_with_article} that nothing else refers to. `rollback` brings it back. Exit code 4 if "
        "there is none.\n\n" + examples(f"shoal {kind.noun} delete support"),
    )
    @click.argument("slug")
    @NAMESPACE
    @EXPECT
    @shoal_options
    def delete(call: Invocation, slug: str, namespace: str, version: int | None) -> int:
        """Exit code 1 if others refer to it, or it is at another version."""

        async def deleted() -> int:
            async with declarations_of(call) as there:
                gone = await kind.registrar(there).delete(slug, namespace, expected_version=version)
            return say(call, kind, "deleted", gone)

        return call.wait_for(deleted())

    return delete


def _switch(kind: Kind, *, on: bool) -> click.Command:
    verb, said = ("activate", "activated") if on else ("deactivate", "deactivated")
    meaning = f"Switch {kind.noun_with_article} on." if on else f"Switch {kind.noun_with_article} off: it stays there."

    @click.command(
        verb, help=f"{meaning} Exit code 4 if there is none.\n\n" + examples(f"shoal {kind.noun} {verb} support")
    )
    @click.argument("slug")
    @NAMESPACE
    @shoal_options
    def switch(call: Invocation, slug: str, namespace: str) -> int:
        """In all processes within a second."""

        async def switched() -> int:
            async with declarations_of(call) as there:
                registrar = kind.registrar(there)
                done = registrar.activate if on else registrar.deactivate
                return say(call, kind, said, await done(slug, namespace, by=user()))

        return call.wait_for(switched())

    return switch


def _rollback(kind: Kind) -> click.Command:
    @click.command(
        "rollback",
        help=f"Make an earlier version of {kind.noun_with_article} the present one, as a new version; a deleted one "
        "comes back.\n\n" + examples(f"shoal {kind.noun} rollback support 3"),
    )
    @click.argument("slug")
    @click.argument("version", type=int)
    @NAMESPACE
    @shoal_options
    def rollback(call: Invocation, slug: str, version: int, namespace: str) -> int:
        """Exit code 4 if there is no such version."""

        async def rolled_back() -> int:
            async with declarations_of(call) as there:
                done = await kind.registrar(there).rollback(slug, version, namespace, by=user())
            return say(call, kind, f"as it was at version {version}", done)

        return call.wait_for(rolled_back())

    return rollback

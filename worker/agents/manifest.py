"""Objects as YAML files have them: one document for each, with its `kind`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from worker.errors import BadSetting
from worker.objects import BadObject, Stored
from worker.settings.file import parse_documents
from worker.settings.prompt_file import read_prompt_file

if TYPE_CHECKING:
    from worker.agents.declarations import Declarations
    from worker.agents.registrar import Registrar

KINDS = ("Llm", "Datasource", "Group", "App", "Agent")
"""As the documents name them; none refers to a later one."""
PROMPT_FILE = "system_prompt_file"


class Document(Struct, frozen=True, kw_only=True):
    """One object of a file."""

    where: str
    """For messages: the file, and which of its documents."""
    kind: str
    fields: dict[str, Any]


class Applied(Struct, frozen=True, kw_only=True):
    """What came of one document."""

    kind: str
    slug: str
    namespace: str
    outcome: str
    """`created`, `changed` or `unchanged`."""
    version: int
    warnings: tuple[str, ...] = ()


def read_documents(path: Path) -> list[Document]:
    """The objects of a YAML file; `system_prompt_file` is read, relative to it.

    Raises `BadSetting` for what cannot be read, `BadObject` for a document without a kind.
    """
    documents = []
    for index, fields in enumerate(parse_documents(path)):
        where = f"{path}, document {index + 1}"
        documents.append(_document(path, where, fields))
    if not documents:
        raise BadObject(f"{path}: there is no document in it")
    return documents


def _document(path: Path, where: str, mapping: Mapping[Any, Any]) -> Document:
    fields = {str(name): value for name, value in mapping.items()}
    kind = fields.pop("kind", None)
    found = next((known for known in KINDS if str(kind).casefold() == known.casefold()), None)
    if found is None:
        raise BadObject(f"{where}: kind is {kind!r}: use one of {', '.join(KINDS)}")
    if (name := fields.pop(PROMPT_FILE, None)) is not None:
        if found != "Agent" or fields.get("system_prompt"):
            raise BadObject(f"{where}: {PROMPT_FILE} is for agents, and instead of system_prompt")
        if not isinstance(name, str) or not name:
            raise BadObject(f"{where}: {PROMPT_FILE} is {name!r}: use the name of a file")
        _check_near(where, path, name)
        fields["system_prompt"] = read_prompt_file(name, beside=path)
    return Document(where=where, kind=found, fields={name: item for name, item in fields.items() if item is not None})


def _check_near(where: str, path: Path, name: str) -> None:
    """Whoever may write a document that a pipeline applies shall not read the pipeline's other files with it: an
    agent's prompt is no secret from those who talk to it."""
    wanted = (path.parent / Path(name).expanduser()).resolve()
    if not any(wanted.is_relative_to(near.resolve()) for near in (path.parent, Path.cwd())):
        raise BadObject(
            f"{where}: {PROMPT_FILE} is {name!r}, outside of the file's folder and of the one you are in: move it "
            "there, or use system_prompt"
        )


async def apply_documents(
    documents: Sequence[Document], declarations: Declarations, *, by: str = "", namespace: str = ""
) -> list[Applied]:
    """Make the fleet's objects be like these; those that others refer to come first. Nothing is written if any document
    cannot be an object. `namespace`: of the documents that name none.

    Raises `BadObject`, `BackendUnavailable`.
    """
    wanted = [
        (registrar, _value(registrar, document, namespace), document)
        for registrar in declarations.in_order()
        for document in documents
        if document.kind.casefold() == registrar.kind
    ]
    _check_once(wanted)
    if wanted:
        await wanted[0][0].refresh()  # what is written from here on is known at once
    return [await _applied(registrar, value, document, by) for registrar, value, document in wanted]


def _check_once(wanted: Sequence[tuple[Registrar[Any], Any, Document]]) -> None:
    """Two documents about one object would take turns, each time they are applied."""
    seen: dict[tuple[str, str, str], str] = {}
    for registrar, value, document in wanted:
        address = (registrar.kind, value.namespace, value.slug)
        if (first := seen.setdefault(address, document.where)) != document.where:
            raise BadObject(f"{document.where}: {registrar.kind} {value.slug!r} is there twice, first in {first}")


def _value(registrar: Registrar[Any], document: Document, namespace: str) -> Any:
    fields = {"namespace": namespace, **document.fields} if namespace else document.fields
    try:
        return registrar.checked(fields)
    except BadObject as error:
        raise BadObject(f"{document.where}: {error}") from error


async def _applied(registrar: Registrar[Any], value: Any, document: Document, by: str) -> Applied:
    try:
        warnings = registrar.check(value)
        stored: Stored[Any]
        stored, outcome = await registrar.put(value, by=by)
    except (BadObject, BadSetting) as error:
        raise BadObject(f"{document.where}: {error}") from error
    return Applied(
        kind=document.kind,
        slug=value.slug,
        namespace=value.namespace,
        outcome=outcome,
        version=stored.version,
        warnings=tuple(warnings),
    )

"""`shoal datasource`: texts that agents search by meaning: declared, filled, asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli import datasource_documents as documents
from worker.cli.declared import declared_group
from worker.cli.declared_fields import Flag
from worker.cli.declared_kind import Kind
from worker.cli.screen import Column

if TYPE_CHECKING:
    from worker.datasources.model import Datasource

_FLAGS = (
    Flag("--name", "name", "Its name for people; default: its slug."),
    Flag("--description", "description", "For agents: what can be found there."),
    Flag("--store", "store", "Kind of vector store.  [default: embedded]", metavar="NAME"),
    Flag("--embed-model", "embed_model", "The model that makes vectors; `lexical` needs no key."),
    Flag("--embed-provider", "embed_provider", "Its provider; default: found from the model.", metavar="NAME"),
    Flag("--embed-base-url", "embed_base_url", "Where the provider is reached; default: its own.", metavar="URL"),
    Flag("--embed-key-env", "embed_api_key_env", "Name of the variable with its key.", metavar="NAME"),
    Flag("--embed-option", "embed_options", "An option of the provider. Repeatable.", "pairs", "NAME=VALUE"),
    Flag("--chunk-tokens", "chunk_tokens", "About how long a passage is.  [default: 400]", "number"),
    Flag("--chunk-overlap", "chunk_overlap_tokens", "Of it, what the next one repeats.  [default: 60]", "number"),
    Flag("--option", "options", "An option of the store, such as table=manuals. Repeatable.", "pairs", "NAME=VALUE"),
    Flag("--privacy-score", "privacy_score", "How private its texts are; higher is more.", "number"),
)


def _cells(source: Datasource) -> tuple[str, ...]:
    made_by = "/".join(filter(None, (source.embed_provider, source.embed_model)))
    return source.store, made_by, source.description


datasource = declared_group(
    Kind(
        "datasource",
        "a data source",
        "datasources",
        "manuals --embed-model text-embedding-3-small --description 'Manuals of all our machines'",
        _FLAGS,
        (Column("store"), Column("embeddings"), Column("description", wide=True)),
        _cells,
    ),
    "Data sources: texts that agents search by meaning. See docs/datasources.md.",
)
for _command in (documents.ingest, documents.query, documents.list_documents, documents.remove, documents.delete):
    datasource.add_command(_command)

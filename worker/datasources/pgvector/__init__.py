"""Passages in PostgreSQL with the extension `vector`: for collections that are too large for every process' memory.

Options of a data source: `url_env` names the environment variable with the database's URL (default
`SHOAL_PGVECTOR_URL`), `schema` and `table` say where (default: the connection's schema, and a name made of the data
source's). A data source has two tables, `<table>` with the passages and `<table>_documents`.
"""

from worker.datasources.pgvector.store import PgvectorStore, open_store

__all__ = ["PgvectorStore", "open_store"]

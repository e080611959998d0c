"""A vector store in Qdrant, for what is too large for the state store, on the official client.

Two collections hold a data source: `<name>` its passages, `<name>-documents` their documents. A document's passages
carry the edition that they were written as, and count only while their document is of that edition: writing the
document makes an edition valid, in one step. What remains of earlier ones is deleted, at the latest when the document
is written again.

Options of a data source: `url`, or `url_env` with the name of a variable that holds it (default `SHOAL_QDRANT_URL`);
`api_key_env`; `collection`.
"""

from worker.datasources.qdrant.opening import open_store

__all__ = ["open_store"]

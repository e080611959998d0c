"""The default vector store: passages and vectors in the state store, searched in the memory of each process.

No further server is needed, and a whole fleet sees the same, on any engine. Under `vectors/<collection>/`:

- `stamps`: which state each of the index's buckets is in, and what writers are about to do. One read of this key tells
  a process whether what it holds is current; so every search sees all that was written before it began.
- `index/<bucket>`: the documents, spread over a fixed number of buckets by the hash of their id.
- `p/<token>/<n>/v<i>` and `…/t<i>`: the vectors and the texts of one document as one writer wrote them, in parts that
  every engine takes. They never change: a document that is replaced gets parts under a new token.
"""

from worker.datasources.embedded.store import EmbeddedStore, open_store

__all__ = ["EmbeddedStore", "open_store"]

"""Where usage records can be streamed to: each keeps its own place in the ledger, in one step with the records."""

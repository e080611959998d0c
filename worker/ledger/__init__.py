"""The ledger of usage records, for those who read it: over any span, grouped, exported, or streamed elsewhere."""

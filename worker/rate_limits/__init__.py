"""How fast models may be called: limits per key, route or model that the whole fleet keeps together."""

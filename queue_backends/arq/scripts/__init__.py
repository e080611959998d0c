"""The Lua scripts, one per state change; each file's header lists the keys it touches."""

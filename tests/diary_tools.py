"""Two tools that write what they do into a file: one may be called again after an interruption, the other may not."""

from __future__ import annotations

TOOLS = """
from worker import tool

def _write(line):
    with open({diary!r}, "a") as diary:
        diary.write(line + "\\n")

@tool
async def note(text: str) -> str:
    '''Write something down, once.'''
    _write("note " + text)
    return "noted " + text

@tool(idempotent=True)
async def peek(text: str) -> str:
    '''Look something up.'''
    _write("peek " + text)
    return "saw " + text
"""
"""To be filled with the path, `diary`, and written into a file for `python_tools`."""

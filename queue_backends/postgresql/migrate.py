"""Makes or upgrades the schema, or prints the SQL for those who apply it by their own means.

python -m queue_backends.postgresql.migrate URL
python -m queue_backends.postgresql.migrate --grant worker URL     # and lets the role `worker` use it
python -m queue_backends.postgresql.migrate --print [URL]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sys

from queue_backends.errors import QueueError
from queue_backends.postgresql.address import Address
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.migrations import grants, migrate, migrations, script
from queue_backends.postgresql.sessions import Connection


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: the schema is what this program needs, or was printed."""
    parser = argparse.ArgumentParser(prog="python -m queue_backends.postgresql.migrate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("url", nargs="?", default="", help="postgresql://…, with ?schema= for another than 'shoal'")
    parser.add_argument("--print", action="store_true", dest="prints", help="print the SQL and change nothing")
    parser.add_argument("--grant", metavar="ROLE", default="", help="give this role the rights of a worker")
    given = parser.parse_args(arguments)
    if not given.url and not given.prints:
        parser.error("which database? give its postgresql:// URL, or --print")
    try:
        address = Address.of(given.url)
        if given.prints:
            sys.stdout.write(script(address.schema) + (grants(address.schema, given.grant) if given.grant else ""))
        else:
            sys.stdout.write(asyncio.run(_apply(address, given.grant)) + "\n")
    except QueueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _apply(address: Address, role: str) -> str:
    connections = Connections(address)
    try:
        await connections.check()
        before = await migrate(connections)
        if role:
            await connections.work(functools.partial(_grant, text=grants(address.schema, role)))
    finally:
        await connections.close()
    latest = migrations()[-1][0]
    done = f"is at version {latest}" if before == latest else f"was upgraded from version {before} to {latest}"
    return f"schema {address.schema!r} {done}"


async def _grant(connection: Connection, *, text: str) -> None:
    await connection.execute(text.encode())


if __name__ == "__main__":
    sys.exit(main())

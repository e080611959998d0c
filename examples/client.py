"""Submit a task, show its answer as it is written, then what it took.

Start a worker first (`shoal worker`), then: python examples/client.py "Your prompt"
"""

import asyncio
import sys

from worker import connect


async def main() -> None:
    """One task on the queue that TASK_QUEUE_URL names, or on the embedded one."""
    async with connect() as fleet:
        task = await fleet.submit(" ".join(sys.argv[1:]) or "Say hello to the shoal")
        async for chunk in task:
            print(chunk.content, end="", flush=True)
        result = await task.result()
        print(f"\n{result.usage.total_tokens} tokens, cost {result.cost_usd}")


asyncio.run(main())

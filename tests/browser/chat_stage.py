"""A gateway to chat with: agents on scripted models that think, use tools, write Markdown, take time, and fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from providers import AgentConfig
from providers.pricing import ModelPrice
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.agents.model import Agent
from worker.gateway.context import Gateway

TOOLS = '''
from worker import tool
from worker.errors import ToolCallFailed


@tool(idempotent=True)
def search_orders(customer: str, limit: int = 10) -> str:
    """Find a customer's orders."""
    return '[{"order": "A-1042", "placed": "2026-11-02", "state": "delivered", "total_eur": 84.5}, ' \\
        '{"order": "A-1077", "placed": "2026-11-16", "state": "in transit", "total_eur": 23.9}]'


@tool(idempotent=True)
def shipping_status(order: str) -> str:
    """Where a parcel is."""
    raise ToolCallFailed(f"the carrier does not know order {order!r} yet")


@tool(idempotent=True)
def read_log(lines: int) -> str:
    """Read a long log."""
    return "".join(f"line {number}: all is well\\\\n" for number in range(lines))
'''

ORDERS = """You have **two orders** this month:

| Order | Placed | State | Total |
|:------|:-------|:------|------:|
| A-1042 | 2 Nov | delivered | 84.50 € |
| A-1077 | 16 Nov | in transit | 23.90 € |

The second one left the warehouse, but the carrier has *not scanned it yet*. What you can do:

1. Wait until tomorrow: parcels are usually scanned within a day.
2. Ask me again, or look yourself:
   - on the [tracking page](https://example.com/track/A-1077)
   - or with the command below

```bash
curl https://example.com/api/orders/A-1077/events \\
  --header "Accept: application/json"
```

> Refunds for lost parcels are possible after seven days."""

MARKDOWN = """# A report

## Numbers

- first
  - nested *one*
- [x] done

```python
print("hello <b>world</b>")
```

<img src=x onerror="document.title='hacked'"> and <script>document.title='hacked'</script>

[a trap](javascript:document.title='hacked') and [a way out](https://example.com/page) and ![a picture](https://example.com/p.png)

~~~
never closed"""

SLOW = {
    "thinking": "Counting takes its time.",
    "text": " ".join(f"word-{number}" for number in range(4000)),
    "chunk_delay_s": 0.02,
}
SCRIPT: dict[str, Any] = {
    "scenarios": [
        {
            "match": "orders",
            "turns": [
                {
                    "thinking": "The customer wants to know about their orders. "
                    "I look them up first, and then where the last parcel is.",
                    "text": "I look that up for you.",
                    "tool_calls": [{"name": "search_orders", "arguments": {"customer": "c-311", "limit": 5}}],
                    "usage": {"input_tokens": 412, "output_tokens": 63},
                },
                {
                    "tool_calls": [{"name": "shipping_status", "arguments": {"order": "A-1077"}}],
                    "usage": {"input_tokens": 560, "output_tokens": 31},
                },
                {"text": ORDERS, "usage": {"input_tokens": 655, "output_tokens": 158}},
            ],
        },
        {
            "match": "logs",
            "turns": [
                {"tool_calls": [{"name": "read_log", "arguments": {"lines": 300}}]},
                {"text": "The log has 300 lines."},
            ],
        },
        {"match": "markdown", "turns": [{"text": MARKDOWN}]},
        {"match": "slow", "turns": [SLOW]},
        {"match": "annual report", "turns": [SLOW]},
        {
            "match": "stumble",
            "turns": [
                {
                    "text": "a whole sentence",
                    "fault": {"kind": "stream_broken", "after_chunks": 3, "attempts": 1},
                }
            ],
        },
        {
            "match": "broken",
            "turns": [{"fault": {"kind": "invalid_request", "message": "the model does not take images"}}],
        },
        {"turns": [{"text": "You said: {prompt}", "usage": {"input_tokens": 20, "output_tokens": 5}}]},
    ]
}
AGENTS = (
    Agent(slug="support", name="Support", description="Knows orders, parcels and refunds, and looks them up."),
    Agent(slug="research", name="Research", description="Reads long documents and answers with sources."),
    Agent(slug="writer", name="Writer", description="Turns notes into texts that people like to read."),
)


class ChatStage:
    """A gateway with a worker inside, in memory."""

    def __init__(self, folder: Path) -> None:
        (folder / "tools.py").write_text(TOOLS)
        agent = AgentConfig(
            model="mock",
            provider="scripted",
            options={"script": SCRIPT},
            tools=("search_orders", "shipping_status", "read_log"),
        )
        settings = gateway_settings(
            agent=agent,
            python_tools=(str(folder / "tools.py"),),
            prices={"mock": ModelPrice(input_usd=3.0, output_usd=15.0)},
        )
        self.server = GatewayServer(settings)

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return self.server.url

    @property
    def key(self) -> str:
        """A key that may do everything."""
        return self.server.admin_key

    def new_key(self) -> str:
        """A key of somebody new, who has no conversations and may talk to agents."""
        return self.server.make_key(["agents.use"])

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.server.do(_declare)
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()


async def _declare(gateway: Gateway) -> None:
    for agent in AGENTS:
        await gateway.definitions.agents.create(agent)

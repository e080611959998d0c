"""What every provider must do, as a suite that a third party can run on its own provider.

    class TestMyProvider(ProviderConformance):
        recordings = Path(__file__).parent / "recordings" / "mine"

        def provider(self) -> ChatProvider:
            return MyProvider()

        def config(self, base_url: str) -> AgentConfig:
            return AgentConfig(model="mine-1", base_url=base_url)

Run it with pytest and pytest-asyncio. `recordings` holds streams of the vendor as they came over the wire, and
`expected.json`: for each recording's name the `TurnEnd` that it means. What the vendor lacks is named in the provider's
`gaps` (`providers.capabilities`): the tests of it then have to fail. All else is tested, so each recording is needed:

| recording | what it is |
|---|---|
| `text` | a plain answer that ends by itself |
| `unicode` | text of many scripts |
| `tool_call`, `parallel_tools` | one call of a tool, several in one turn |
| `thinking` | reasoning, then text, with the count of reasoning tokens |
| `thinking_tool_call` | optional: reasoning, then a call; else `thinking` shows that reasoning is carried on |
| `max_tokens`, `stop_sequence`, `refusal` | answers that ended so |
| `cached` | an answer whose usage has cache reads, and cache writes |
| `structured` | an answer that is JSON: `{"city": "Lisbon", "temperature_c": 21}` |

The hooks for other stream formats (`suffix`, `content_type`, `frames`, `malformed`, `line_ends`) and for
the vendor's other answers (`completion_body`, `embeddings_body`, `count_body`, `model_body`, `healthy_body`) are in
`support.Conformance`.
"""

from providers.conformance.answers import AnswerConformance
from providers.conformance.errors import ErrorConformance
from providers.conformance.health import HealthConformance
from providers.conformance.other_calls import OtherCallsConformance
from providers.conformance.requests import RequestConformance
from providers.conformance.settings import SettingsConformance
from providers.conformance.streams import StreamConformance
from providers.conformance.structured import StructuredConformance
from providers.conformance.support import Conformance, needs
from providers.conformance.thinking import ThinkingConformance
from providers.conformance.tools import ToolConformance

__all__ = ["Conformance", "ProviderConformance", "needs"]


class ProviderConformance(
    AnswerConformance,
    ToolConformance,
    ThinkingConformance,
    RequestConformance,
    StructuredConformance,
    ErrorConformance,
    StreamConformance,
    OtherCallsConformance,
    SettingsConformance,
    HealthConformance,
):
    """Everything that a provider promises."""

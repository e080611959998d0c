"""What a provider's Execute takes and gives, as GetSchema tells it."""

from __future__ import annotations

from providers.remote.plugin_messages import ParamItem

PARAMS = (
    ParamItem(name="prompt", description="A single question"),
    ParamItem(name="messages", description="A conversation: JSON array of role and content"),
    ParamItem(name="tools", description="Tools that may be called: JSON array of functions"),
    ParamItem(name="tool_choice", description="auto, required or none"),
    ParamItem(name="max_tokens", type="number", description="Most output tokens"),
    ParamItem(name="temperature", description="Sampling temperature"),
    ParamItem(name="model", description="The model, if it shall be another than the configured one"),
)
OUTPUTS = (
    ParamItem(name="content", required=True, description="The answer's text"),
    ParamItem(name="model", required=True, description="The model that answered"),
    ParamItem(name="finish_reason", required=True, description="stop, tool_calls or length"),
    ParamItem(name="tool_calls", description="Tools to be called: JSON array"),
    ParamItem(name="input_tokens", type="number", description="Tokens of the input, if known"),
    ParamItem(name="output_tokens", type="number", description="Tokens of the output, if known"),
)

"""What happens around the tool calls of a run: no call twice, findings of earlier ones, summaries of what fills the
window, long results kept apart, and advice. See `docs/loop-policy.md`."""

from worker.loop_policy.model import Advisor, Compression, LoopMemory, LoopPolicy, SandboxPolicy

__all__ = ["Advisor", "Compression", "LoopMemory", "LoopPolicy", "SandboxPolicy"]

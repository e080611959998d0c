"""Every setting there is, as data: its key, its environment variable, what it may be and what it means.

The loader, `docs/configuration.md` and `shoal doctor` all read this table, so none of them can drift from the others. A
`key` is the path of a field in `Settings` (`agent.max_tokens`), which is its place in `shoal.yaml` too. Defaults are
those of the Structs. Names, bounds and error texts of the `AGENT_*` variables, `TASK_QUEUE_URL`, `STREAM_CHANNEL_URL`
and `POD_NAME` are ark's.
"""

from __future__ import annotations

from worker.settings.sections.agent import AGENT
from worker.settings.sections.approvals import APPROVALS
from worker.settings.sections.artifacts import ARTIFACTS
from worker.settings.sections.gateway import GATEWAY
from worker.settings.sections.loop_policy import LOOP_POLICY
from worker.settings.sections.operations import LABELS_AND_OPERATIONS
from worker.settings.sections.plugins import PLUGINS
from worker.settings.sections.queue import QUEUE
from worker.settings.sections.tools import TOOLS
from worker.settings.sections.work import WORK
from worker.settings.setting import Setting

SECTIONS: dict[str, tuple[Setting, ...]] = {
    "Queue": QUEUE,
    "Agent": AGENT,
    "Work": WORK,
    "Tools": TOOLS,
    "Artifacts": ARTIFACTS,
    "Loop policy": LOOP_POLICY,
    "Approvals": APPROVALS,
    "Plugins": PLUGINS,
    "Gateway": GATEWAY,
    "Labels and operations": LABELS_AND_OPERATIONS,
}
SETTINGS: tuple[Setting, ...] = tuple(setting for section in SECTIONS.values() for setting in section)
"""All settings but `agents`, which is a mapping of names to what `agent` has."""

BY_KEY = {setting.key: setting for setting in SETTINGS}

"""The engine's side of remote plugins: registration, health, settings, processes on this machine."""

from worker.engine.approvals import Approval, Approvals
from worker.engine.endpoint import Engine, engine_running
from worker.engine.options import EngineOptions

__all__ = ["Approval", "Approvals", "Engine", "EngineOptions", "engine_running"]

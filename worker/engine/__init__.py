"""The engine's side of remote plugins: registration, health, settings, processes on this machine."""

from worker.engine.endpoint import Engine, engine_running
from worker.engine.options import EngineOptions

__all__ = ["Engine", "EngineOptions", "engine_running"]

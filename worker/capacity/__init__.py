"""What a number of tasks needs: workers, servers, memory, bandwidth. From costs that were measured."""

from worker.capacity.figures import Figures, Measured, measured
from worker.capacity.model import Limits, Load, Need, needs

__all__ = ["Figures", "Limits", "Load", "Measured", "Need", "measured", "needs"]

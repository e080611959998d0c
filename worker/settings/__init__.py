"""All configuration of a worker: one value, built once from defaults, `shoal.yaml`, environment and flags."""

from worker.settings.load import find_config, load_settings
from worker.settings.model import Settings
from worker.settings.setting import Setting
from worker.settings.table import SETTINGS

__all__ = ["SETTINGS", "Setting", "Settings", "find_config", "load_settings"]

"""A team's first files, as `shoal init` writes them."""

from worker.teams.project.writing import write_project

__all__ = ["write_project"]

"""Teams: flows of steps and teams of roles, declared in YAML, run durably on any queue."""

"""Notification policies: who is told when a run ends, a budget runs out, or an agent lacks what it needs."""

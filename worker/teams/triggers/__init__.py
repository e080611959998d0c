"""Triggers: what starts runs of teams by itself — a schedule, a request from outside, the end of another team's run."""

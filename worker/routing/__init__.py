"""Where model calls go: routes of several targets, chosen by an agent or a task. See docs/routing.md."""

from worker.routing.errors import AllTargetsFailed, RouteNotFound
from worker.routing.route import BreakerPolicy, Route, RouteTarget, Strategy, read_route, read_routes
from worker.routing.route_table import PREFIX, check_live
from worker.setting_keys import register_key

__all__ = [
    "AllTargetsFailed",
    "BreakerPolicy",
    "Route",
    "RouteNotFound",
    "RouteTarget",
    "Strategy",
    "read_route",
    "read_routes",
]

register_key(PREFIX, check_live)

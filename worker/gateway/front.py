"""What all endpoints of one gateway share beside its parts: authentication, limits, figures, and the end."""

from __future__ import annotations

from worker.gateway.auth import Authenticator
from worker.gateway.browser_guard import BrowserGuard
from worker.gateway.context import Gateway
from worker.gateway.gateway_metrics import GatewayMetrics
from worker.gateway.limits import FailureLimit, RequestLimits, StreamSlots
from worker.gateway.open_streams import OpenStreams
from worker.gateway.peers import Peers


class Front:
    """One per application."""

    def __init__(self, gateway: Gateway, auth: Authenticator) -> None:
        settings = gateway.settings.gateway
        self.settings = settings
        self.auth = auth
        self.guard = BrowserGuard(settings)
        self.peers = Peers(settings.trusted_proxies)
        self.limits = RequestLimits(burst=settings.burst)
        self.failures = FailureLimit()
        self.slots = StreamSlots(most=settings.max_streams, most_of_one=settings.max_streams_per_key)
        self.streams = OpenStreams(auth.is_good)
        self.metrics = GatewayMetrics()

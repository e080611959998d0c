"""Suite: live settings, and what they must never show."""

from __future__ import annotations

import msgspec

from providers.capabilities import Capability
from providers.conformance.support import Conformance, capable, check, collect, failure_of, needs, request_for
from providers.errors import InvalidRequest
from providers.interfaces import ConfigParam, LiveConfig
from providers.live_config import check_value
from providers.replay_server import ReplayServer, json_error

_TYPES = frozenset({"string", "int", "bool", "duration", "json"})
_SECRET = "live-secret-0123456789"  # noqa: S105 - a key that opens nothing


class SettingsConformance(Conformance):
    """`describe` and `config_updated`."""

    @needs(Capability.LIVE_SETTINGS)
    async def test_describe(self) -> None:
        """Each setting has a key of its own, a type that exists, a default that fits it, and a description."""
        params = capable(self.provider(), LiveConfig).describe()
        keys = [param.key for param in params]
        check(params and len(set(keys)) == len(keys), f"no settings, or two of one key: {keys}")
        for param in params:
            check(isinstance(param, ConfigParam) and param.type in _TYPES, f"{param.key} is of type {param.type!r}")
            check(param.description, f"{param.key} has no description")
            check(not (param.secret and param.default), f"{param.key} is secret, and has a default for all to see")
            check_value(param, param.default)

    @needs(Capability.LIVE_SETTINGS)
    async def test_keys_are_secret(self) -> None:
        """Whatever is named like a key, a token or a secret is marked as one."""
        for param in capable(self.provider(), LiveConfig).describe():
            words = set(param.key.split("_"))
            check(param.secret or not words & {"key", "token", "secret", "password"}, f"{param.key} is not secret")

    @needs(Capability.LIVE_SETTINGS)
    async def test_new_address(self) -> None:
        """A new `base_url` is used from the next call on, and an agent's own counts more."""
        async with self.serving(self.whole("text")) as (first, provider, config), ReplayServer(first.replies) as second:
            live = capable(provider, LiveConfig)
            anywhere = msgspec.structs.replace(config, base_url="")
            for server, calls in ((first, 1), (second, 1)):
                await live.config_updated({"base_url": self.config(server.url).base_url})
                await collect(provider, request_for(anywhere))
                check(len(server.requests) == calls, "the call went elsewhere")
            await collect(provider, request_for(config))
            check(len(first.requests) == 2, "the agent's own address does not count more")

    @needs(Capability.LIVE_SETTINGS)
    async def test_unknown_setting(self) -> None:
        """A key that is not declared is refused, by its name, and then nothing has changed."""
        async with self.serving(self.whole("text")) as (server, provider, config):
            live = capable(provider, LiveConfig)
            await live.config_updated({"base_url": config.base_url})
            try:
                await live.config_updated({"base_url": "http://127.0.0.1:1", "no_such_setting": "1"})
            except InvalidRequest as error:
                check("no_such_setting" in str(error), f"the error does not name the setting: {error}")
            else:
                raise AssertionError("an unknown setting was taken")
            await collect(provider, request_for(msgspec.structs.replace(config, base_url="")))
            check(len(server.requests) == 1, "a refused update was taken in part")

    @needs(Capability.LIVE_SETTINGS)
    async def test_live_key(self) -> None:
        """A new key is used from the next call on, and is in no `repr` and no error."""
        async with self.serving(self.whole("text")) as (server, provider, config):
            live = capable(provider, LiveConfig)
            if not any(param.key == "api_key" for param in live.describe()):
                return
            config = msgspec.structs.replace(config, api_key_env="")
            await live.config_updated({"api_key": _SECRET})
            await collect(provider, request_for(config))
            request = server.requests[0]
            check(any(_SECRET in value for value in (request.target, *request.headers.values())), "the key is not sent")
            check(_SECRET not in repr(provider), "the key is in the provider's repr")
            server.replies = [json_error(401, self.error_body.replace(b"the reason", b"no: " + _SECRET.encode()))]
            error = await failure_of(provider, request_for(config))
            check(_SECRET not in f"{error} {error!r} {error.__cause__!r}", "the key is in the error")

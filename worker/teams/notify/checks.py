"""What a notification policy has to fit before it is stored."""

from __future__ import annotations

import re

from worker.objects.errors import BadObject
from worker.objects.field_checks import check_url, check_words
from worker.teams.notify.model import MOST_CHANNELS, Channel, Notify
from worker.teams.triggers.checks import check_own_variables, check_template

LONGEST_RATE_LIMIT_S = 30 * 86_400
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_RESERVED = frozenset({"host", "content-length", "transfer-encoding", "connection", "webhook-id", "webhook-timestamp"})
_MOST_VALUE_CHARS = 4096


def check_notify(notify: Notify) -> None:
    """Raise `BadObject` for what does not fit, with the field, its value and what is allowed."""
    what = f"notify {notify.slug!r}"
    check_words(what, notify.name, notify.description)
    if not 1 <= len(notify.channels) <= MOST_CHANNELS:
        raise BadObject(f"{what} has {len(notify.channels)} channels: give 1 to {MOST_CHANNELS}")
    if not 0 <= notify.rate_limit_s <= LONGEST_RATE_LIMIT_S:
        raise BadObject(f"{what}: rate_limit_s is {notify.rate_limit_s}: use 0 (no limit) to {LONGEST_RATE_LIMIT_S}")
    for index, channel in enumerate(notify.channels):
        _check_channel(f"{what}: channels[{index}]", notify.namespace, channel)


def _check_channel(where: str, namespace: str, channel: Channel) -> None:
    if not (channel.url or channel.url_env):
        raise BadObject(f"{where} has no address: give url, or url_env, the environment variable that holds it")
    if channel.type == "slack" and channel.url:
        raise BadObject(f"{where}: a Slack webhook's address is a secret: name the variable that holds it in url_env")
    if channel.type == "slack" and (channel.method != "POST" or channel.headers):
        raise BadObject(f"{where}: method and headers are for webhooks: Slack is always sent the same")
    check_url(f"{where}: url", channel.url)
    check_own_variables(where, namespace, [channel.url_env, *(header.value_env for header in channel.headers)])
    for header in channel.headers:
        if not _HEADER.fullmatch(header.name) or header.name.lower() in _RESERVED:
            raise BadObject(f"{where}: header {header.name[:100]!r} cannot be set: use another name")
        if len(header.value) > _MOST_VALUE_CHARS or not header.value.isprintable() or not header.value.isascii():
            raise BadObject(f"{where}: the value of header {header.name!r} has to be one line of printable ASCII")
    if channel.template:
        check_template(f"{where}.template", channel.template)

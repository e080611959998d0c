"""Limits as operators write them, and the calls that they are about."""

from __future__ import annotations

from typing import Any

import pytest

from tests.accounting.calls import model_call
from worker.errors import BadSetting
from worker.rate_limits.rules import RateLimit, account_of, read_limit, read_limits
from worker.settings import load_settings


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"requests_per_minute": 3}, "unknown field"),
        ({"requests_per_min": 0}, "more than 0"),
        ({"requests_per_min": "many"}, "limits.main"),
        ({"concurrent": 0}, "limits.main.concurrent"),
        ({"burst_s": 0}, "burst_s"),
        ({"wait_s": -1}, "wait_s"),
        ({"weights": {"acme": 0}}, "weight"),
        ({"where": {"color": "red"}}, "color is not known"),
        ({"per": ["planet"]}, "planet is not known"),
        ({"learn": False}, "no limit is given"),
        (7, "it looks like"),
    ],
)
def test_a_wrong_limit_is_said(value: Any, said: str) -> None:
    """One line that names the limit, what is wrong with it and what is allowed."""
    with pytest.raises(BadSetting, match=r"limits\.main") as caught:
        read_limit("main", value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_is_needed() -> None:
    """It is part of a key, so it has no slash."""
    for name in ("", " ", "a/b", "x" * 101):
        with pytest.raises(BadSetting, match="name"):
            read_limit(name, {"concurrent": 1})
    with pytest.raises(BadSetting, match="names and limits"):
        read_limits(["main"])


def test_numbers_may_be_text() -> None:
    """As they come from a command line; one part need not be a list."""
    limit = read_limit("main", {"requests_per_min": "60", "concurrent": "4", "per": "model"})
    assert (limit.requests_per_min, limit.concurrent, limit.per) == (60.0, 4, ("model",))


@pytest.mark.parametrize(
    ("limit", "account"),
    [
        ({}, "anthropic:TEAM_KEY@llm.example.com"),
        ({"per": ["key", "model"]}, "anthropic:TEAM_KEY@llm.example.com claude-x"),
        ({"per": []}, ""),
        ({"per": "tenant", "where": {"provider": "anthropic", "model": "claude-*"}}, "acme"),
        ({"per": "team"}, "-"),
        ({"where": {"model": "gpt-*"}}, None),
        ({"where": {"key": "anthropic:*"}}, "anthropic:TEAM_KEY@llm.example.com"),
    ],
)
def test_the_account_of_a_call(limit: dict[str, Any], account: str | None) -> None:
    """By what the limit keeps accounts for; none if the limit is not about the call. A key appears by name alone."""
    call = model_call(
        provider="anthropic",
        task={"tenant": "acme"},
        model="claude-x",
        api_key_env="TEAM_KEY",
        base_url="https://llm.example.com/v1",
    )
    assert account_of(read_limit("main", {"requests_per_min": 1, **limit}), call) == account


def test_only_whole_keys_hear_the_vendor() -> None:
    """What a vendor refuses says nothing about one tenant's part of the key."""
    assert RateLimit(per=("key", "model")).is_vendors
    assert RateLimit(per=()).is_vendors
    assert not RateLimit(per=("key", "tenant")).is_vendors


def test_limits_in_the_settings(tmp_path: Any) -> None:
    """`limits:` in the file, `SHOAL_LIMITS` over it."""
    file = tmp_path / "shoal.yaml"
    file.write_text(
        "limits:\n  main:\n    where: {provider: anthropic}\n    requests_per_min: 4000\n    concurrent: 8\n"
    )
    limit = load_settings({}, file=file).limits["main"]
    assert (limit.name, limit.where, limit.requests_per_min) == ("main", {"provider": "anthropic"}, 4000.0)
    changed = load_settings({"SHOAL_LIMITS": '{"other": {"concurrent": 2}}'}, file=file).limits
    assert set(changed) == {"other"}
    with pytest.raises(BadSetting, match=r"limits\.main"):
        load_settings({"SHOAL_LIMITS": '{"main": {"concurrent": -2}}'}, file=file)

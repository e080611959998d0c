"""The files in which AWS's tools keep profiles: `~/.aws/config` and `~/.aws/credentials`.

Source: https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html.
"""

from __future__ import annotations

import asyncio
import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from providers.errors import AuthenticationFailed

_FILES = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))

Profiles = Mapping[str, Mapping[str, str]]


def profile_name(chosen: str = "") -> str:
    """The profile to use: the chosen one, else `AWS_PROFILE`, else `AWS_DEFAULT_PROFILE`, else `default`."""
    return chosen or os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"


async def load_profiles() -> Profiles:
    """All profiles of both files; where both set a key, the credentials file counts.

    Files that are not there are empty. Raises `AuthenticationFailed` if one cannot be read.
    """
    return await asyncio.to_thread(_load)


def _load() -> Profiles:
    profiles: dict[str, dict[str, str]] = {}
    for variable, usual in _FILES:
        path = Path(os.environ.get(variable) or usual).expanduser()
        for section, values in _sections(path).items():
            name = section.removeprefix("profile ").strip().strip("'\"")
            profiles.setdefault(name, {}).update(values)
    return profiles


def _sections(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(default_section="", strict=False, allow_no_value=True)
    fault = ""
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        fault = type(error).__name__
    if fault:  # raised out here, without a cause: the parser's error quotes the line, which may hold a secret
        raise AuthenticationFailed(f"{path} cannot be read: {fault}")
    return {name: {key: value or "" for key, value in parser.items(name)} for name in parser.sections()}

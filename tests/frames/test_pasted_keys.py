"""A history that holds a key already: which commits, without the key."""

from __future__ import annotations

import datetime as dt

import pandas as pd

from tundra_nb.frames.pasted_keys import pasted_keys

KEY = "sk-ant-api03-0123456789abcdefABCDEF"
AT = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)


def test_commits_that_hold_a_key_are_named_once_and_the_key_is_not() -> None:
    settings = pd.DataFrame(
        {
            "commit": ["c1", "c1", "c2", "c3"],
            "committed_at": [AT] * 4,
            "path": ["profile.a.api_key_env", "breaker.failures", "profile.a.api_key_env", "profile.a.api_key_env"],
            "value": [f'"{KEY}"', "5", '"OPENAI_API_KEY"', '"<key>"'],
        }
    )
    profiles = pd.DataFrame(
        {"commit": ["c1", "c2"], "committed_at": [AT, AT], "name": ["a", "a"], "api_key_env": [KEY, "OPENAI_API_KEY"]}
    )
    found = pasted_keys(settings, profiles)
    assert [(one.commit, one.path) for one in found] == [("c1", "profile.a.api_key_env")]
    assert KEY not in repr(found) + found[0].remedy
    assert "Revoke" in found[0].remedy


def test_a_history_without_settings_holds_none() -> None:
    assert pasted_keys(pd.DataFrame(), pd.DataFrame()) == []

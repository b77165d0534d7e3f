"""Settings: precedence, provenance, and errors that say where."""

from __future__ import annotations

import errno
import os
import tempfile
import tomllib
from pathlib import Path

import pytest

from tundra_nb import settings
from tundra_nb.errors import ConfigError, UsageError
from tundra_nb.settings import file as settings_file
from tundra_nb.settings import variants


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tundra.toml"


def loaded(file: Path, text: str = "", **environ: str) -> settings.Loaded:
    if text:
        file.write_text(text)
    return settings.load(file, environ)


def line(loaded: settings.Loaded, path: str) -> settings.SettingLine:
    return next(found for found in settings.lines(loaded) if found.path == path)


def test_without_a_file_the_documented_defaults_are_in_force(file: Path) -> None:
    found = loaded(file).settings

    assert (found.breaker.failures, found.breaker.successes, found.breaker.open_seconds) == (5, 2, 30)
    assert (found.limits.global_.rate, found.limits.global_.burst) == (50, 100)
    assert (found.limits.user.enabled, found.limits.profile.enabled) == (False, False)
    assert found.deadlines == settings.DeadlineSettings(connect_seconds=10, idle_seconds=30, total_seconds=600)
    assert (found.store.engine, found.store.port, found.pty.capacity) == ("doltlite", 3307, 10)


def test_environment_beats_file_beats_preset_beats_default(file: Path) -> None:
    text = 'preset = "development"\n[breaker]\nsuccesses = 4\nopen_seconds = 7\n'

    found = loaded(file, text, TUNDRA_BREAKER__OPEN_SECONDS="9")

    assert (found.settings.breaker.failures, line(found, "breaker.failures").source) == (3, "preset development")
    assert (found.settings.breaker.successes, line(found, "breaker.successes").source) == (4, str(file))
    assert (found.settings.breaker.open_seconds, line(found, "breaker.open_seconds").source) == (
        9,
        "TUNDRA_BREAKER__OPEN_SECONDS",
    )
    assert line(found, "router.retries").source == "default"


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        ("[breaker\n", "line 1", "not valid TOML"),
        ("[breaker]\nfailures = 5\nfailures = 6\n", "line 3", "not valid TOML"),
        ('[breaker]\nfailures = "five"\n', "breaker.failures", "expected `int`"),
        ("[breaker]\nfailures = 0\n", "breaker.failures", ">= 1"),
        ("[limits.global]\nrate = 0\n", "limits.global.rate", "> 0"),
        ('preset = "prod"\n', "preset", "prod"),
        ("[store]\nport = 99999\n", "store.port", "65535"),
        ('[[profile]]\nname = "a"\nkind = "openai"\nrpm = -1\n', "profile.a.rpm", "> 0"),
        ('[[profile]]\nname = "a"\nkind = "gemini"\n', "profile.a.kind", "gemini"),
        ('[[profile]]\nname = "a"\nkind = "local"\n', "profile.a.base_url", "address"),
        ('[[profile]]\nname = "a"\nkind = "openai"\nbase_url = "ftp://x"\n', "profile.a.base_url", "URL"),
        ('[[profile]]\nname = "a"\nkind = "openai"\nbase_url = "http://u:pw@x"\n', "profile.a.base_url", "secret"),
        ('[[profile]]\nname = "a"\nkind = "openai"\nbase_url = "http://x/v1?key=k"\n', "profile.a.base_url", "secret"),
        ('[[profile]]\nname = "a"\nkind = "openai"\n' * 2, "profile.a", "two profiles"),
        ('[log]\nfilter = "garbage==="\n', "log.filter", "unknown level"),
        ('[gateway]\nlisten = "here"\n', "gateway.listen", "no address and port"),
        ("[breaker]\nopen_seconds = nan\n", "breaker.open_seconds", "finite"),
        ("[breaker]\nopen_seconds = -inf\n", "breaker.open_seconds", "finite"),
        ('[[profile]]\nname = "a"\nkind = "openai"\nrpm = inf\n', "profile.a.rpm", "finite"),
        ("[breaker]\nfailures = 99999999999999999999999\n", "breaker.failures", ""),
        ("[store]\ncommit_seconds = 1e-300\n", "store.commit_seconds", ">= 0.001"),
        ("[record]\ndays = 1e300\n", "record.days", "<= 36500"),
        ("[daemon]\nidle_exit_seconds = 1e308\n", "daemon.idle_exit_seconds", "<= 1000000000"),
        ("[store]\nreserve_mb = 1e13\n", "store.reserve_mb", "<= 1000000000000"),
        ('[store]\ndatabase = "a b; drop"\n', "store.database", "letters, digits, `_` and `-`"),
        ('[[profile]]\nname = "a b"\nkind = "openai"\n', "profile.a b.name", "letters, digits, `.`, `_` and `-`"),
        (f'[[profile]]\nname = "{"a" * 9999}"\nkind = "openai"\n', f"profile.{'a' * 63}….name", "length <= 64"),
        ('[[profile]]\nname = "auto"\nkind = "openai"\n', "profile.auto.name", "at the gateway"),
    ],
)
def test_a_malformed_file_is_an_error_that_says_where(file: Path, text: str, where: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)

    assert where in str(caught.value)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("pipe", "this is no file"),
        ("directory", "cannot be read"),
        ("endless", "more than 1,000,000 bytes"),
        ("long", "more than 1,000,000 bytes"),
        ("deep", "too deep"),
        ("latin", "cannot be read"),
    ],
)
def test_what_is_no_settings_file_is_refused_without_waiting_or_reading_on(file: Path, kind: str, told: str) -> None:
    """The daemon looks at it while it serves calls: a pipe, or a file without end, would hold it up for good."""
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "directory":
            file.mkdir()
        case "endless":
            file.symlink_to("/dev/zero")
        case "long":
            file.write_text("a" * 1_000_001)
        case "deep":
            file.write_text("a = " + "[" * 100_000)
        case "latin":
            file.write_bytes("# café\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=told):
        settings.load(file, {})


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf[breaker]\r\nfailures = 3\r\n", b"[breaker]\rfailures = 3\r"])
def test_an_editors_byte_order_mark_and_line_ends_are_read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert settings.load(file, {}).settings.breaker.failures == (3 if content else 5)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[breakr]\nfailures = 3\n", "breaker"),
        ("[breaker]\nfailure = 3\n", "breaker.failures"),
        ("[limits.globl]\nrate = 3\n", "limits.global"),
        ('[[profile]]\nname = "a"\nkind = "openai"\nbase_ur = "http://x"\n', "profile.a.base_url"),
    ],
)
def test_an_unknown_setting_names_the_nearest(file: Path, text: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)

    assert f"Did you mean {nearest!r}?" in caught.value.hint


def test_an_unknown_setting_in_the_environment_names_the_variable(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(file, TUNDRA_BREAKER__FAILURE="3")

    assert "TUNDRA_BREAKER__FAILURE" in str(caught.value)


def test_profiles_come_from_the_keys_that_are_there_at_the_vendors_own_hosts(file: Path) -> None:
    found = loaded(file, OPENAI_API_KEY="k", ANTHROPIC_API_KEY="k").settings.profile

    assert [(profile.name, profile.base_url, profile.api_key_env) for profile in found] == [
        ("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    ]


def test_a_vendors_key_is_not_sent_to_another_host_unless_named(file: Path) -> None:
    text = '[[profile]]\nname = "a"\nkind = "openai"\nbase_url = "https://elsewhere.example/v1"\n'

    assert loaded(file, text, OPENAI_API_KEY="k").settings.profile[0].api_key_env == ""


def test_setting_a_value_keeps_comments_and_the_rest(file: Path) -> None:
    file.write_text("# mine\n[breaker]\nfailures = 5  # five\n\n[router]\nretries = 1\n")

    changed = settings_file.set_value(file, "breaker.failures", 3, {})

    assert changed.settings.breaker.failures == 3
    assert file.read_text() == "# mine\n[breaker]\nfailures = 3  # five\n\n[router]\nretries = 1\n"


@pytest.mark.parametrize(
    ("path", "value"), [("breaker.failures", -1), ("breaker.failure", 3), ("store.engine", "sqlite")]
)
def test_a_value_that_is_not_allowed_leaves_the_file_as_it_was(file: Path, path: str, value: object) -> None:
    file.write_text("[breaker]\nfailures = 5\n")

    with pytest.raises(UsageError):
        settings_file.set_value(file, path, value, {})

    assert file.read_text() == "[breaker]\nfailures = 5\n"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_told_with_its_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[breaker]\nfailures = 5\n")

    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied") as told:
        settings_file.set_value(file, "breaker.failures", 3, {})
    assert told.value.where == str(file)
    assert file.read_text() == "[breaker]\nfailures = 5\n"


def test_a_profile_is_added_once(file: Path) -> None:
    profile = {"name": "local", "kind": "local", "base_url": "http://127.0.0.1:8080/v1"}

    added = settings_file.add_profile(file, profile, {})

    assert [found.name for found in added.settings.profile] == ["local"]
    with pytest.raises(UsageError, match="exists already"):
        settings_file.add_profile(file, profile, {})


@pytest.mark.parametrize("name", ["b", "gpt-4.1", "rpm.rpm"])
def test_a_value_of_a_profile_is_set_by_its_name(file: Path, name: str) -> None:
    file.write_text(f'[[profile]]\nname = "a"\nkind = "openai"\n\n[[profile]]\nname = "{name}"\nkind = "openai"\n')

    changed = settings_file.set_value(file, f"profile.{name}.rpm", 50, {})

    assert [profile.rpm for profile in changed.settings.profile] == [None, 50]


def test_a_value_of_an_unknown_profile_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="no profile 'c'"):
        settings_file.set_value(file, "profile.c.rpm", 50, {})


PASTED = [
    "sk-ant-api03-0123456789abcdefABCDEF",
    "sk_live_51H8xabcdEFGH0123456789",
    "abcdef0123456789abcdef0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefABCDEF0123456789abcd",
    "A9xK2mP4qR7sT1uV3wX5yZ8",
    "MY KEY",
    "$MY_KEY",
]


@pytest.mark.parametrize("path", ["gateway.models.gpt-4.1", 'gateway.models."gpt-4.1"', "gateway.models.'gpt-4.1'"])
def test_another_name_of_a_model_may_have_dots_and_quotes_around_it(tmp_path: Path, path: str) -> None:
    file = tmp_path / "tundra.toml"
    changed = settings_file.set_value(file, path, "auto", {})
    assert changed.settings.gateway.models == {"gpt-4.1": "auto"}
    assert tomllib.loads(file.read_text()) == {"gateway": {"models": {"gpt-4.1": "auto"}}}
    assert settings_file.set_value(file, path, None, {}).settings.gateway.models == {}


@pytest.mark.parametrize("pasted", PASTED)
def test_a_key_where_a_variables_name_belongs_is_refused_and_not_repeated(file: Path, pasted: str) -> None:
    profile = '[[profile]]\nname = "a"\nkind = "openai"\n'
    with pytest.raises(ConfigError) as in_file:
        loaded(file, f'{profile}api_key_env = "{pasted}"\n')
    assert "profile.a.api_key_env" in in_file.value.message
    file.write_text(profile)
    with pytest.raises(ConfigError) as in_environment:
        loaded(file, TUNDRA_STORE__PASSWORD_ENV=pasted)
    assert "TUNDRA_STORE__PASSWORD_ENV" in in_environment.value.message
    with pytest.raises(UsageError) as by_flag:
        settings_file.set_value(file, "profile.a.api_key_env", pasted, {})
    with pytest.raises(UsageError) as by_add:
        settings_file.add_profile(file, {"name": "b", "kind": "openai", "api_key_env": pasted}, {})
    for caught in (in_file, in_environment, by_flag, by_add):
        assert pasted not in f"{caught.value.message} {caught.value.hint}"
        assert "revoked" in caught.value.hint
    assert pasted not in file.read_text()


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "hf_token", "_X", "KEY_2024_PROD", "TeamKey2024"])
def test_the_name_of_a_variable_is_accepted(file: Path, name: str) -> None:
    found = loaded(file, f'[[profile]]\nname = "a"\nkind = "openai"\napi_key_env = "{name}"\n')
    assert found.settings.profile[0].api_key_env == name


@pytest.mark.parametrize("value", [[[""], None], {"a": None}, object()])
def test_a_value_that_toml_cannot_write_is_refused_with_its_field(tmp_path: Path, value: object) -> None:
    with pytest.raises(UsageError, match="cannot stand in a settings file") as told:
        settings_file.add_profile(tmp_path / "tundra.toml", {"name": "p", "kind": "local", "base_url": value}, {})
    assert told.value.field == "base_url"


def test_a_fault_is_told_with_its_line_and_how_to_mend_it(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(file, '# mine\n[log]\nkeep = 3\nfilter = "garbage==="\n')
    assert f"{file}, line 4, log.filter" in caught.value.message
    assert "tundra settings unset log.filter" in caught.value.hint
    with pytest.raises(ConfigError) as in_environment:
        loaded(file, "[log]\n", TUNDRA_LOG__FILTER="garbage===")
    assert "Correct the variable TUNDRA_LOG__FILTER" in in_environment.value.hint


def test_faults_of_a_file_are_mended_one_by_one(file: Path) -> None:
    file.write_text('[log]\nfilter = "garbage==="  # why?\n[breaker]\nfailure = 3\n[record]\ndays = nan\n')
    with pytest.raises(UsageError):
        settings_file.mend(file, "log.filter", "worse===", {})
    assert "breaker.failure" in str(settings_file.mend(file, "log.filter", "info", {}))
    assert "record.days" in str(settings_file.mend(file, "breaker.failure", None, {}))
    assert settings_file.mend(file, "record.days", None, {}) is None
    assert file.read_text() == '[log]\nfilter = "info"  # why?\n[breaker]\n[record]\n'
    assert list(file.parent.iterdir()) == [file]


def test_unsetting_brings_the_default_back_and_knows_what_is_no_setting(file: Path) -> None:
    file.write_text("[breaker]\nfailures = 3\n")
    assert settings_file.set_value(file, "breaker.failures", None, {}).settings.breaker.failures == 5
    settings_file.set_value(file, "record.days", None, {})
    assert file.read_text() == "[breaker]\n"
    with pytest.raises(UsageError) as caught:
        settings_file.set_value(file, "breaker.failurs", None, {})
    assert caught.value.nearest == "breaker.failures"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e13"])
def test_a_rehearsal_takes_no_number_that_settings_would_not(number: str) -> None:
    (values,) = variants.variants([f"limits.global.rate={number}"])
    with pytest.raises(UsageError, match=r"limits\.global\.rate"):
        variants.changed(settings.Settings(), values)

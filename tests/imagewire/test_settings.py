"""Settings come from one file and the environment, mistakes are named, and secrets stay secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imagewire.cli import run
from imagewire.settings import ConfigurationError, LoadedSettings, load_settings
from imagewire.settings_reference import DEFAULT_PAGE, describe_settings, settings_page

ROOT = Path(__file__).parents[2]
SECRETS = ("kafka-hush", "clickhouse-hush", "qdrant-hush", "http-hush")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("IMAGEWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(file: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    return str(caught.value)


def toml(text: str, name: str = "imagewire.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def with_secrets(monkeypatch: pytest.MonkeyPatch) -> LoadedSettings:
    toml(
        f"""
        [kafka]
        security_protocol = "SASL_SSL"
        sasl_username = "me"
        sasl_password = "{SECRETS[0]}"
        [clickhouse]
        password = "{SECRETS[1]}"
        """
    )
    monkeypatch.setenv("IMAGEWIRE_QDRANT__API_KEY", SECRETS[2])
    monkeypatch.setenv("IMAGEWIRE_HTTP__KEY", SECRETS[3])
    return load_settings()


# where values come from


def test_without_a_file_and_variables_the_defaults_are_in_force() -> None:
    loaded = load_settings()
    assert loaded.file is None
    assert loaded.origins == {}
    assert loaded.settings.kafka.bootstrap_servers == "127.0.0.1:9092"


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toml('[kafka]\nbootstrap_servers = "from-file:1"\npartitions = 7\n')
    monkeypatch.setenv("IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS", "from-environment:1")
    loaded = load_settings()
    assert loaded.settings.kafka.bootstrap_servers == "from-environment:1"
    assert loaded.settings.kafka.partitions == 7
    assert loaded.settings.kafka.replication_factor == 1
    origins = {setting.key: setting.origin for setting in describe_settings(loaded)}
    assert origins["kafka.bootstrap_servers"] == "IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS"
    assert origins["kafka.partitions"] == "file"
    assert origins["kafka.replication_factor"] == "default"


def test_keys_of_tables_within_tables_have_variables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    toml('[kafka.topics]\nimages = "pictures"\nfailed = "broken"\n')
    monkeypatch.setenv("IMAGEWIRE_KAFKA__TOPICS__IMAGES", "photos")
    topics = load_settings().settings.kafka.topics
    assert (topics.images, topics.failed, topics.verdicts) == (
        "photos",
        "broken",
        "images.verdicts",
    )


def test_a_named_file_is_used_instead_of_the_one_in_the_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toml("[kafka]\npartitions = 1\n")
    toml("[kafka]\npartitions = 2\n", "variable.toml")
    toml("[kafka]\npartitions = 3\n", "argument.toml")
    assert load_settings().settings.kafka.partitions == 1
    monkeypatch.setenv("IMAGEWIRE_CONFIG", "variable.toml")
    assert load_settings().settings.kafka.partitions == 2
    assert load_settings(Path("argument.toml")).settings.kafka.partitions == 3


def test_lists_in_variables_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEWIRE_FETCH__FILE_ROOTS", '["/srv/photos", "/srv/more"]')
    assert load_settings().settings.fetch.file_roots == (Path("/srv/photos"), Path("/srv/more"))


def test_options_of_operators_have_their_types_also_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toml('[operators.text]\nenabled = true\nlanguage = "en"\n')
    monkeypatch.setenv("IMAGEWIRE_OPERATORS__TEXT__ENABLED", "false")
    monkeypatch.setenv("IMAGEWIRE_OPERATORS__OBJECTS__CONFIDENCE", "0.4")
    monkeypatch.setenv("IMAGEWIRE_OPERATORS__OBJECTS__MODEL", "my-detector")
    monkeypatch.setenv("IMAGEWIRE_OPERATORS__OBJECTS__CLASSES", '["cat", "dog"]')
    loaded = load_settings()
    assert loaded.settings.operators == {
        "text": {"enabled": False, "language": "en"},
        "objects": {"confidence": 0.4, "model": "my-detector", "classes": ["cat", "dog"]},
    }
    (described,) = [row for row in describe_settings(loaded) if row.key == "operators"]
    assert "IMAGEWIRE_OPERATORS__OBJECTS__MODEL" in described.origin
    assert "file" in described.origin


def test_variables_that_are_no_settings_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGEWIRE_CACHE", "IMAGEWIRE_KAFKA_HOME", "IMAGEWIRE_FRONT_API_KEY"):
        monkeypatch.setenv(name, "/somewhere")
    assert load_settings().origins == {}


# mistakes


def test_an_unknown_key_is_refused_with_the_nearest_name_and_where_it_stands() -> None:
    path = toml(
        '[kafka]\nbootstrap_server = "x:1"\n[kafka.topics]\nimage = "x"\n[bach]\nsize = 3\n'
    )
    assert sorted(refusal().splitlines()) == [
        f"{path}, key 'bach': there is no such key; did you mean 'batch'?",
        f"{path}, key 'kafka.bootstrap_server': there is no such key; did you mean "
        "'bootstrap_servers'?",
        f"{path}, key 'kafka.topics.image': there is no such key; did you mean 'images'?",
    ]


def test_a_key_that_resembles_none_is_refused_with_the_valid_ones() -> None:
    toml("[log]\nzzz = 1\n")
    assert "valid: level" in refusal()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("IMAGEWIRE_KAFKA__BOOTSTRAP_SERVER", "did you mean 'bootstrap_servers'?"),
        ("IMAGEWIRE_KAFKA__TOPICS__IMAGE", "did you mean 'images'?"),
        ("IMAGEWIRE_HTPP__PORT", "did you mean IMAGEWIRE_HTTP__PORT?"),
        ("IMAGEWIRE_KAFKA_PARTITIONS", "IMAGEWIRE_KAFKA__PARTITIONS"),
        ("IMAGEWIRE_QQQ", "IMAGEWIRE_ and one of: KAFKA, "),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    monkeypatch.setenv(name, "hush")
    message = refusal()
    assert name in message
    assert advice in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ('[batch]\nmax_batch = "many"', "batch.max_batch", "must be a valid integer"),
        ("[batch]\nmax_batch = 0", "batch.max_batch", "must be greater than or equal to 1"),
        ('[log]\nlevel = "LOUD"', "log.level", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("kafka = 3", "kafka", "this is a table with keys of its own, such as [kafka]"),
        ("[operators]\ntext = 3", "operators.text", "such as [operators.text]"),
        ("[kafka]\nclient_id = 3", "kafka.client_id", "must be text, in quotes"),
        ('[fetch]\nfile_roots = ["photos"]', "fetch.file_roots", "is not an absolute path"),
        ("[fetch]\nmax_bytes = 99999999999", "fetch", "over 1 GiB"),
        ('[kafka.topics]\nimages = "images.failed"', "kafka.topics", "more than one purpose"),
        ("[http]\nkey = ''", "http.key", "at least 1 "),
    ],
)
def test_a_wrong_value_is_named_with_its_key(text: str, key: str, reason: str) -> None:
    path = toml(text)
    message = refusal()
    assert message.startswith(f"{path}, key '{key}")
    assert reason in message


def test_a_value_that_could_be_of_several_kinds_and_is_of_none_is_one_mistake() -> None:
    path = toml('[fetch]\nallow_networks = ["10.0.0.0/8", "nonsense", "10.0.0.1/8"]')
    said = "must be a network such as 10.0.0.0/8 or fd00::/8, with no bits set after its prefix"
    assert refusal().splitlines() == [
        f"{path}, key 'fetch.allow_networks.1': {said}",
        f"{path}, key 'fetch.allow_networks.2': {said}",
    ]


def test_a_wrong_value_in_a_variable_is_named_with_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toml("[batch]\nmax_batch = 4\n")
    monkeypatch.setenv("IMAGEWIRE_BATCH__MAX_BATCH", "many")
    assert refusal().startswith("IMAGEWIRE_BATCH__MAX_BATCH: must be a valid integer")


@pytest.mark.parametrize("value", ["/srv/photos", "[/srv/photos]", "{"])
def test_a_list_that_is_no_json_is_named_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("IMAGEWIRE_FETCH__FILE_ROOTS", value)
    message = refusal()
    assert message.startswith("IMAGEWIRE_FETCH__FILE_ROOTS: this is a list or a table")
    assert '["one", "two"]' in message


def test_a_whole_table_in_a_variable_is_checked_like_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEWIRE_KAFKA", '{"partitions": 3}')
    assert load_settings().settings.kafka.partitions == 3
    monkeypatch.setenv("IMAGEWIRE_KAFKA", '{"partition": 3}')
    assert "IMAGEWIRE_KAFKA, key 'partition': there is no such key; did you mean" in refusal()
    monkeypatch.setenv("IMAGEWIRE_KAFKA", "{partitions: 3}")
    assert refusal().startswith("IMAGEWIRE_KAFKA: ")


def test_an_address_beyond_loopback_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEWIRE_HTTP__HOST", "0.0.0.0")
    message = refusal()
    assert message.startswith("IMAGEWIRE_HTTP__HOST: ")
    assert "set http.key (IMAGEWIRE_HTTP__KEY), or bind to 127.0.0.1" in message
    monkeypatch.setenv("IMAGEWIRE_HTTP__KEY", "")
    assert "IMAGEWIRE_HTTP__KEY" in refusal()
    monkeypatch.setenv("IMAGEWIRE_HTTP__KEY", "a key")
    assert load_settings().settings.http.host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.3.2.1"])
def test_a_loopback_address_needs_no_key(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("IMAGEWIRE_HTTP__HOST", host)
    assert load_settings().settings.http.key is None


@pytest.mark.parametrize(
    ("clickhouse", "retention", "reason"),
    [
        (
            "",
            "reviews_days = 89",
            "reviews_days (89) is less than rows of images are kept (90 days)",
        ),
        ("retention_days = 0", "reviews_days = 9999", "(for ever)"),
        ("", "images_days = 30\nreviews_days = 29", "make it no less, or set images_days to 29"),
        ("", "images_days = 30\nreviews_days = 30", None),
        ("retention_days = 7", "reviews_days = 7", None),
        ("retention_days = 0", "feeds = { gate = 7 }", None),
        ("enabled = false", "reviews_days = 1", None),
    ],
)
def test_decisions_of_people_cannot_go_before_the_images_that_they_are_about(
    clickhouse: str, retention: str, reason: str | None
) -> None:
    file = toml(f"[clickhouse]\n{clickhouse}\n[retention]\n{retention}\n")
    if reason is None:
        load_settings(file)
        return
    message = refusal(file)
    assert message.startswith(f"{file}, key 'retention': ")
    assert reason in message


def test_a_file_that_is_missing_or_no_toml_is_named() -> None:
    assert refusal(Path("nowhere.toml")) == "nowhere.toml cannot be read: No such file or directory"
    assert refusal(toml("kafka = = 3")).startswith("imagewire.toml is no TOML: ")
    Path("imagewire.toml").write_bytes(b"\xff\xfe\x00")
    assert refusal().startswith("imagewire.toml is no TOML: ")
    Path("folder.toml").mkdir()
    assert refusal(Path("folder.toml")) == "folder.toml cannot be read: Is a directory"


# secrets


def test_secrets_are_masked_wherever_settings_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = with_secrets(monkeypatch)
    values = {row.key: row.value for row in describe_settings(loaded)}
    assert values["qdrant.api_key"] == "**********"
    shown = [repr(loaded), str(loaded.settings), repr(describe_settings(loaded))]
    for arguments in (["config"], ["config", "--json"], ["config", "--describe"]):
        assert run(arguments) == 0
        shown.append("".join(capsys.readouterr()))
    for secret in SECRETS:
        assert not any(secret in text for text in shown)
    assert loaded.settings.qdrant.api_key is not None
    assert loaded.settings.qdrant.api_key.get_secret_value() == SECRETS[2]


@pytest.mark.parametrize(
    "text",
    [
        '[qdrant]\napi_key = ["hush"]',
        '[kafka]\nsasl_password = { hush = "hush" }',
        '[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_password = "hush"',
        '[clickhouse]\npassword = "hush"\ninterface = "chdb"',
        '[http]\nkey = "hush"\nport = "hush"',
    ],
)
def test_a_mistake_beside_or_in_a_secret_does_not_show_it(text: str) -> None:
    assert "hush" not in refusal(toml(text)).replace("key 'kafka.sasl_password.hush'", "")


def test_a_secret_in_a_variable_that_is_no_json_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEWIRE_QDRANT", '{"api_key": "hush"')
    assert "hush" not in refusal()


# the command


def test_config_prints_each_setting_its_value_and_its_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml("[batch]\nmax_batch = 4\n")
    monkeypatch.setenv("IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS", "kafka:1")
    assert run(["config"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert 'kafka.bootstrap_servers = "kafka:1"    (IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS)' in lines
    assert "batch.max_batch = 4    (file)" in lines
    assert "batch.max_wait = 0.2" in lines
    assert printed.err == "file: imagewire.toml\n"

    assert run(["config", "--json", "--describe"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["batch.max_batch"]["value"] == 4
    assert rows["batch.max_batch"]["origin"] == "file"
    assert all(row["description"] for row in rows.values())


def test_config_says_what_is_wrong_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    toml("[batch]\nmax_bach = 4\n")
    assert run(["config"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error imagewire.toml, key 'batch.max_bach': ")


def test_the_page_of_settings_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--reference"]) == 0
    page = capsys.readouterr().out
    assert page == settings_page()
    assert (ROOT / DEFAULT_PAGE).read_text() == page, (
        "run: imagewire config --reference > docs/settings.md"
    )


def test_every_setting_is_described_on_the_page() -> None:
    page = settings_page()
    for setting in describe_settings(load_settings()):
        assert setting.description, setting.key
        # These are tables with sections of their own.
        own_section = setting.key in ("operators", "webhooks", "api.keys")
        assert own_section or f"`{setting.key.split('.')[-1]}`" in page
    assert "## `[[webhooks]]`" in page
    assert "## `[[api.keys]]`" in page

"""Webhooks that cannot work are refused when the settings are read, and secrets are not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from webhook_receiver import KEY, SECRET

from imagewire.settings import ConfigurationError, load_settings
from imagewire.webhooks_settings import WebhookSecretError, WebhookSettings


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"url": "http://example.org/"}, "unencrypted"),
        ({"url": "ftp://example.org/"}, "begins with https"),
        ({"url": "https://user:pass@example.org/"}, "no user name"),
        ({"url": "https://"}, "begins with https"),
        ({"secret": None}, "exactly one of"),
        ({"secret_variable": "X"}, "exactly one of"),
        ({"actions": []}, "at least 1"),
        ({"name": "a b"}, "pattern"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused(changes: dict[str, Any], complaint: str) -> None:
    fields = {"name": "a", "url": "https://example.org/", "secret": SECRET}
    with pytest.raises(ValidationError, match=complaint) as caught:
        WebhookSettings.model_validate(fields | changes)
    assert SECRET not in str(caught.value)


def test_a_secret_comes_from_a_file_or_a_variable_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"name": "a", "url": "https://example.org/?token=geheim"}
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    made = WebhookSettings.model_validate(base | {"secret_file": file})
    assert made.key() == KEY
    monkeypatch.setenv("HOOK", SECRET)
    assert WebhookSettings.model_validate(base | {"secret_variable": "HOOK"}).key() == KEY
    given = WebhookSettings.model_validate(base | {"secret": SECRET})
    assert SECRET not in repr(given)
    assert "geheim" not in repr(given)
    for wrong in ("short", "whsec_!!!", "whsec_aGk="):
        with pytest.raises(WebhookSecretError) as caught:
            WebhookSettings.model_validate(base | {"secret": wrong}).key()
        assert wrong not in str(caught.value)
    monkeypatch.delenv("HOOK")
    with pytest.raises(WebhookSecretError, match="HOOK is not set"):
        WebhookSettings.model_validate(base | {"secret_variable": "HOOK"}).key()


def test_a_webhook_of_the_settings_file_is_explained_when_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "imagewire.toml"
    file.write_text(f'[[webhooks]]\nname = "a"\nurl = "http://example.org/"\nsecret = "{SECRET}"\n')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    assert "webhooks" in str(caught.value)
    assert SECRET not in str(caught.value)

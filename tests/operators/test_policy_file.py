"""A broken policy is refused at load, and the message says where and what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from operators.operator import OperatorError
from operators.policy import Policy, PolicyError

GOOD = "[[rules]]\nname = 'good'\nwhen = 'true'\naction = 'review'\n\n"


def refusal(tmp_path: Path, text: str) -> str:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(PolicyError) as caught:
        Policy.load(file)
    assert isinstance(caught.value, OperatorError)
    message = str(caught.value)
    assert message.startswith(str(file) + ":")
    return message.removeprefix(str(file) + ":")


def rule(name: str = "bad", when: str = "'true'", action: str = "'block'", more: str = "") -> str:
    return f"[[rules]]\nname = '{name}'\nwhen = {when}\naction = {action}\n{more}"


@pytest.mark.parametrize(
    ("text", "place", "parts"),
    [
        (GOOD + "[[rules]\n", "6:", ["TOML"]),
        (GOOD + "[[rules]]\nname = 'bad'\nwhen = 'unfinished\n", "9:1", ["TOML"]),
        ("[[rule]]\nname='x'\n", "1:1", ["unknown key 'rule'", "[[rules]]"]),
        ("strict = true\n", "1:10", ["unknown key 'strict'"]),
        (GOOD + "[[rules]]\nname = 'bad'\n", "6:1", ["rule 'bad'", "'when' is missing"]),
        (GOOD + "[[rules]]\nwhen = 'true'\n", "6:1", ["rule 'number 2'", "'name' is missing"]),
        (GOOD + rule(more="explnation = 'x'"), "10:14", ["rule 'bad'", "'explanation'"]),
        (GOOD + rule(name="good"), "7:8", ["second rule", "'good'"]),
        (GOOD + rule(action="'ban'"), "9:10", ["'ban'", "allow, review, block"]),
        (GOOD + rule(more="enabled = 'yes'"), "10:11", ["true or false"]),
        (GOOD + rule(more="feeds = 'a'"), "10:9", ["list"]),
        (GOOD + rule(more="feeds = []"), "10:9", ["never fire"]),
        (GOOD + rule(when="3"), "8:8", ["'when' must be a string"]),
        (GOOD + rule(name="rule-error"), "7:8", ["another name"]),
        (GOOD + rule(more="priority = 1.5"), "10:12", ["whole number"]),
        (GOOD + rule(more="severity = 'hgih'"), "10:12", ["low, medium, high, critical"]),
        (GOOD + rule(more="category = 'sexual/nudty'"), "10:12", ["did you mean 'sexual/nudity'"]),
        (
            "[taxonomy]\nown = ['thing']\n" + rule(more="category = 'sexual/nudity'"),
            "7:12",
            ["the taxonomy has own/thing"],
        ),
        ("[taxonomy]\nown = 'thing'\n" + GOOD, "1:1", ["taxonomy: 'own' must be a list"]),
        (GOOD + rule(more="expires = '2027-01-31'"), "10:11", ["without quotes"]),
        (GOOD + rule(more="sample = 0"), "10:10", ["above 0"]),
        (GOOD + rule(more="shadow = 1"), "10:10", ["true or false"]),
        ("", "1:1", ["no [[rules]]", "every image would be allowed", "rules = []"]),
        ("# saved on a full disk\n", "1:1", ["no [[rules]]"]),
        (GOOD + rule(when="'text.matches(\"(\")'"), "8:14", ["regular expression", "unclosed"]),
        (GOOD + rule(when="'!text.matches(\"a{1000}{1000}{9}\")'"), "8:15", ["size limit"]),
        (GOOD + rule(more="explanation = 'in {fed}'"), "10:20", ["'fed'", "'feed'"]),
        (GOOD + rule(more="explanation = 'in {feed'"), "10:19", ["not closed"]),
    ],
)
def test_a_broken_file_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str, parts: list[str]
) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(place)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("when", "place", "parts"),
    [
        ("'feed == == 3'", "8:17", ["rule 'bad'", "CEL syntax error"]),
        ("'feed =='", "8:16", ["the end of the condition"]),
        ("'''\n  size(objects) > 1\n    && (feed\n'''", "11:1", ["')'"]),
        ("'''\ntrue\n  && scroes.nsfw > 1\n'''", "10:6", ["'scroes'", "'scores'"]),
        (r'''"\"a\" == feeed"''', "8:18", ["'feeed'", "'feed'"]),
        ("'objects.exists(o, o.lable == feed)'", "8:29", ["'lable'", "'label'"]),
        ("'image.widht > 3'", "8:15", ["'widht'", "'width'"]),
        ("'text.contians(feed)'", "8:14", ["'contians'", "'contains'"]),
        ("'o.score > 1.0'", "8:9", ["unknown variable 'o'"]),
        ("''", "8:9", ["CEL syntax error"]),
        ("'1 + feed == 2'", "8:11", ["'+' cannot join"]),
        ("'image.width > feed'", "8:21", ["cannot compare a whole number with a text"]),
        ("'feed in text'", "8:14", ["b.contains(a)"]),
        ("'size(objects)'", "8:9", ["neither true nor false"]),
        ("'objects.exists(o, o.score)'", "8:29", ["'exists' needs true or false"]),
        (
            "'objects.exists(a, objects.exists(b, objects.exists(c, objects.exists(d, true))))'",
            "8:9",
            ["macros inside one another"],
        ),
        ("'hashes.exists(h, h.reasn == feed)'", "8:28", ["'reasn'", "'reason'"]),
        ("'" + "(" * 100 + "true" + ")" * 100 + "'", "8:49", ["nested more than"]),
        ("'feed" + ".a" * 100_000 + "'", "8:9", ["characters"]),
        ("'metadata" + ".a" * 100 + " == 1'", "8:97", ["in a row"]),
        ("'" + "(" * 30 + "metadata" + (".a" * 30 + ")") * 30 + " == 1'", "8:9", ["levels deep"]),
    ],
)
def test_a_broken_condition_is_refused_with_its_place_in_the_file(
    tmp_path: Path, when: str, place: str, parts: list[str]
) -> None:
    message = refusal(tmp_path, GOOD + rule(when=when))
    assert message.startswith(place + ":"), message
    assert all(part in message for part in parts), message


def test_positions_hold_behind_comments_arrays_and_strings_that_look_like_tables(
    tmp_path: Path,
) -> None:
    decoy = (
        "# [[rules]]\n[[rules]]\nname = 'decoy'\naction = 'review'\n"
        "explanation = '''\n[[rules]]\nwhen = 1\n'''\n"
        'feeds = [ # ] not the end\n  \'a]\', "b\\"",\n]\n'
        "when = 'true' # when = 'false'\n"
    )
    message = refusal(tmp_path, decoy + rule(when="'feeed == text'"))
    assert message.startswith("15:9:"), message


def test_strings_and_comments_in_a_condition_are_not_taken_for_names(tmp_path: Path) -> None:
    file = tmp_path / "fine.toml"
    file.write_text(
        rule(when="'''\n// image.widht is no field\nfeed == \"image.widht\" || true\n'''")
        + rule("nested", when="'objects.exists(o, texts.all(t, t.score < o.score))'")
        + rule("filtered", when="'objects.filter(o, o.area > 0.1).exists(q, q.score > 0.5)'")
    )
    assert [loaded.name for loaded in Policy.load(file).rules] == ["bad", "nested", "filtered"]


def test_a_policy_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.load(tmp_path / "absent.toml")
    file = tmp_path / "latin.toml"
    file.write_bytes("# é".encode("latin-1"))
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy.load(file)


def test_every_recipe_in_the_documentation_is_a_usable_rule(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    recipes = [
        recipe
        for block in page.split("```cel\n")[1:]
        for recipe in block.split("```")[0].split("\n\n")
    ]
    assert len(recipes) >= 7
    file = tmp_path / "recipes.toml"
    file.write_text(
        page.split("```toml\n")[1].split("```")[0]
        + "\n".join(rule(f"recipe-{n}", when=f"'''{text}'''") for n, text in enumerate(recipes))
    )
    assert len(Policy.load(file).rules) == len(recipes) + 1


def test_a_policy_without_rules_has_to_say_so(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text("rules = []\n")
    assert Policy.load(file).rules == ()


@pytest.mark.parametrize("key", ["a" + ".a" * 400_000, '"a"' + " . 'a'" * 150_000])
def test_a_key_that_would_keep_the_parser_busy_for_hours_is_refused_at_once(key: str) -> None:
    began = time.process_time()
    with pytest.raises(PolicyError, match=r"house:2:1: nested too deeply"):
        Policy.read(f"\n{key} = 1\n".encode(), "house", "house")
    assert time.process_time() - began < 5

"""Judge prompts: answers are data, marks cannot be guessed, mistakes in a YAML file are told."""

from __future__ import annotations

import re

import pytest

from prospect.errors import UserError
from prospect.judge.prompt import load_prompt

GOOD = {
    "name": "mine",
    "version": 1,
    "labels": '"12"',
    "max_tokens": 5,
    "user": '"{conversation} {first} {second}"',
}


def user(salt: bytes = b"s", first: str = "one", second: str = "zwei", labels: str | None = None) -> str:
    return load_prompt("halos", labels).messages(salt, "Why?", first, second)[1]["content"]


@pytest.mark.parametrize("text", ["{mark} {second}", "%s {0} {{x}}", "{{ 7*7 }}", "{conversation}", "\\1 \\g<0>"])
def test_answers_are_never_templates(text):
    assert text in user(first=text)
    assert user(first=text).count("zwei") == 1


def test_order_and_labels():
    text = user(labels="AB")
    assert text.index("RESPONSE A") < text.index("one") < text.index("RESPONSE B") < text.index("zwei")
    assert '"Response A" or\n"Response B"' in text


def test_marks_depend_on_salt_and_texts():
    def mark(text: str) -> str:
        found = re.findall(r"^=== (\w{16}) ", text, re.MULTILINE)
        assert len(found) == 4
        assert len(set(found)) == 1
        return str(found[0])

    assert mark(user()) == mark(user())
    assert len({mark(user()), mark(user(salt=b"t")), mark(user(first="uno"))}) == 3
    assert mark(user()) in load_prompt("halos").messages(b"s", "Why?", "one", "zwei")[0]["content"]


def test_empty_answer_is_shown_as_that():
    assert "[empty response]" in user(first=" \n")


def test_hash_tells_prompts_apart():
    assert load_prompt("halos").sha256 == load_prompt("halos", "12").sha256 != load_prompt("halos", "AB").sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": '"{conversation} {first}"'}, "lacks the field {second}"),
        ({"user": '"{conversation} {first} {second} {secnd}"'}, "unknown field {secnd} (did you mean `second`?)"),
        ({"usr": "x"}, "unknown key usr (did you mean `user`?)"),
        ({"version": "one"}, "version: expected int"),
        ({"labels": '"11"'}, "two different characters"),
    ],
)
def test_mistakes_in_a_file(tmp_path, change, message):
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(f"{key}: {value}" for key, value in GOOD.items()))
    assert load_prompt(str(file)).name == "mine"
    file.write_text("\n".join(f"{key}: {value}" for key, value in {**GOOD, **change}.items()))
    with pytest.raises(UserError, match=re.escape(message)):
        load_prompt(str(file))


def test_unknown_prompt():
    with pytest.raises(UserError, match="did you mean `halos`"):
        load_prompt("halo")

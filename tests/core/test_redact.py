"""Secrets do not leave the process."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core.redact import MASK, Redactor


def test_a_known_secret_is_masked_wherever_it_stands():
    redact = Redactor(["s3cr3t-token"]).text
    assert redact("xs3cr3t-tokenx and s3cr3t-token") == f"x{MASK}x and {MASK}"


def test_a_secret_inside_another_leaves_no_rest():
    redact = Redactor(["abcd", "abcdefgh"]).text
    assert redact("abcdefgh abcd") == f"{MASK} {MASK}"


def test_short_values_are_not_taken_for_secrets():
    """Masking 'a' or 'on' would blank out the message."""
    assert Redactor(["a", "on", "", "abc"]).text("a lamp is on, abc") == "a lamp is on, abc"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "POST https://discord.com/api/webhooks/123/abc-DEF_9 failed",
            f"POST https://discord.com/api/webhooks/{MASK} failed",
        ),
        (
            "https://discord.com/api/v10/webhooks/1/x?wait=true",
            f"https://discord.com/api/v10/webhooks/{MASK}",
        ),
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {MASK}"),
        ("authorization: bearer abc", f"authorization: bearer {MASK}"),
        ("PVEAPIToken=root@pam!zlh=0000-11", f"PVEAPIToken={MASK}"),
        ("token=abc&zone=x", f"token={MASK}&zone=x"),
        ("password: hunter22, next", f"password: {MASK}, next"),
        ("API_KEY = k", f"API_KEY = {MASK}"),
        ("postgresql://zlh:hunter22@db/zlh", f"postgresql://zlh:{MASK}@db/zlh"),
        ("mariadb+pymysql://zlh:hunter22@db", f"mariadb+pymysql://zlh:{MASK}@db"),
        ("1postgresql://zlh:hunter22@db", f"1postgresql://zlh:{MASK}@db"),
        ("URL=MySQL://zlh:hunter22@db", f"URL=MySQL://zlh:{MASK}@db"),
        ("redis://:hunter22@redis:6379/0", f"redis://:{MASK}@redis:6379/0"),
    ],
)
def test_what_looks_like_a_secret_is_masked_unknown_as_it_is(text, left):
    assert Redactor().text(text) == left


@pytest.mark.parametrize("part", ["x", "x.", "a:", "a://", "a://b:", "token ", "bearer\t", "/api/"])
def test_a_long_text_takes_a_time_that_grows_with_its_length(part):
    """A megabyte of one word once cost the square of it, and a message must never hurt."""
    started = time.process_time()
    Redactor(["s3cr3t-token"]).text(part * (1_000_000 // len(part)))
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "text",
    [
        "mc-5000.example.gg A 203.0.113.10",
        "http://127.0.0.1:8080/discord/info",
        "the token or secret was refused",
        "postgresql://db/zlh",
        "password",
    ],
)
def test_ordinary_words_stay(text):
    assert Redactor(["s3cr3t-token"]).text(text) == text


def test_json_is_masked_in_every_depth_and_keeps_its_shape():
    value = {
        "token": "s3cr3t-token",
        "list": ["x s3cr3t-token", 5, None, True, 1.5],
        "deep": {"deeper": [{"a": "Bearer abc"}]},
    }
    assert Redactor(["s3cr3t-token"]).json(value) == {
        "token": MASK,
        "list": [f"x {MASK}", 5, None, True, 1.5],
        "deep": {"deeper": [{"a": f"Bearer {MASK}"}]},
    }


@settings(max_examples=100, deadline=None)
@given(
    secret=st.text(min_size=4, max_size=30).filter(lambda s: MASK not in s and s not in MASK),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_no_surroundings_bring_a_secret_through(secret, before, after):
    assert (
        secret not in Redactor([secret]).text(before + secret + after) or secret in before + after
    )


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_redacting_twice_changes_nothing_more(text):
    redact = Redactor(["s3cr3t-token"]).text
    assert redact(redact(text)) == redact(text)


@given(st.lists(st.sampled_from(["s3cr3t-token", "abcd", "x", "token=", " "]), max_size=60))
def test_the_beginning_of_a_text_is_that_of_the_text_without_secrets(parts):
    redactor = Redactor(["s3cr3t-token", "abcd"])
    text = "".join(parts)
    assert redactor.beginning(text, 10) == redactor.text(text)[:10]


def test_the_beginning_of_a_huge_text_takes_no_time():
    started = time.process_time()
    assert Redactor(["s3cr3t-token"]).beginning("s3cr3t-token" * 5_000_000, 9) == MASK * 3
    assert time.process_time() - started < 1

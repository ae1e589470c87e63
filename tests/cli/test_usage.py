"""A command line that cannot be used is one line on standard error, never the answer of a plan."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ZLH = str(Path(sys.executable).with_name("zlh"))


def zlh(*arguments):
    return subprocess.run([ZLH, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("bogus",), "zlh: No such command 'bogus'. See zlh --help."),
        (("plan", "--bogus"), "zlh: No such option: --bogus. See zlh plan --help."),
        (("revert",), "zlh: Missing argument 'event_id'. See zlh revert --help."),
        (("events", "--limit", "x"), "zlh: Invalid value for '--limit': "),
        (("serve", "everything"), "zlh: Invalid value for 'part': 'everything' is not one of"),
    ],
)
def test_a_mistake_is_one_line(arguments, line):
    done = zlh(*arguments)
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (1, "")


def test_without_a_command_help_is_shown():
    done = zlh()
    assert "Usage: zlh" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("zlh re", ["repair", "revert", "resume"]),
        ("zlh repair dns", ["dns_republish"]),
        ("zlh pause --surface vel", ["velocity"]),
    ],
)
def test_the_shell_completes_commands_and_actions(words, completions):
    asked = {"_ZLH_COMPLETE": "complete_bash", "COMP_WORDS": words}
    asked["COMP_CWORD"] = str(len(words.split()) - 1)
    done = subprocess.run(
        [ZLH], capture_output=True, text=True, timeout=60, env={**os.environ, **asked}
    )
    assert (done.returncode, done.stdout.split()) == (0, completions)


def test_the_version_is_printed():
    done = zlh("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().count(".") == 2

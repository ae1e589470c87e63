"""One measure in a process of its own: ``python -m bench.child module:function '[arguments]'``."""

import importlib
import json
import sys

from bench.harness import say


def main() -> None:
    """Calls the function and says its result as JSON in the last line."""
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    say(json.dumps(function(*json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()

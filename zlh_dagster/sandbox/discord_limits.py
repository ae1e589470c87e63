"""The sizes that Discord lets a message have."""

from typing import Any

from zlh_dagster.sandbox.exchange import JsonObject

_CONTENT = 2000
_EMBEDS = 10
_FIELDS = 25
_TOTAL = 6000
_EMBED_TEXTS = {"title": 256, "description": 4096}
_FIELD_TEXTS = {"name": 256, "value": 1024}


def broken_limits(payload: JsonObject) -> list[str]:
    """What is too long or of the wrong kind in a message, one sentence each."""
    found: list[str] = []
    _measure(payload.get("content"), "content", _CONTENT, found)
    embeds = payload.get("embeds") or []
    if not isinstance(embeds, list) or not all(isinstance(embed, dict) for embed in embeds):
        return [*found, "embeds: must be a list of objects."]
    if len(embeds) > _EMBEDS:
        found.append(f"embeds: must be {_EMBEDS} or fewer in number.")
    total = sum(_measure_embed(embed, f"embeds[{n}]", found) for n, embed in enumerate(embeds))
    if total > _TOTAL:
        found.append(f"embeds: together {total} characters, over {_TOTAL}.")
    return found


def is_empty(payload: JsonObject) -> bool:
    """Whether nothing would be seen of a message."""
    return not payload.get("content") and not payload.get("embeds")


def _measure_embed(embed: JsonObject, where: str, found: list[str]) -> int:
    total = 0
    for name, limit in _EMBED_TEXTS.items():
        total += _measure(embed.get(name), f"{where}.{name}", limit, found)
    total += _measure(_inner(embed, "footer", "text"), f"{where}.footer.text", 2048, found)
    total += _measure(_inner(embed, "author", "name"), f"{where}.author.name", 256, found)
    fields = embed.get("fields") or []
    if not isinstance(fields, list) or not all(isinstance(item, dict) for item in fields):
        found.append(f"{where}.fields: must be a list of objects.")
        return total
    if len(fields) > _FIELDS:
        found.append(f"{where}.fields: must be {_FIELDS} or fewer in number.")
    for n, item in enumerate(fields):
        for name, limit in _FIELD_TEXTS.items():
            if not item.get(name):
                found.append(f"{where}.fields[{n}].{name}: this field is required.")
            total += _measure(item.get(name), f"{where}.fields[{n}].{name}", limit, found)
    return total


def _inner(embed: JsonObject, outer: str, name: str) -> Any:
    part = embed.get(outer)
    return part.get(name) if isinstance(part, dict) else part


def _measure(value: Any, where: str, limit: int, found: list[str]) -> int:
    if value is None:
        return 0
    if not isinstance(value, str):
        found.append(f"{where}: must be text.")
        return 0
    if len(value) > limit:
        found.append(f"{where}: must be {limit} or fewer in length, not {len(value)}.")
    return len(value)

"""Cloudflare's v4 API: one zone's DNS records.

Limits and codes are Cloudflare's: pages of up to 5,000, 1,200 calls in five minutes for a token,
batches of up to 200 changes on free plans, 81057 and 81058 for a record that exists, 81053 for a
CNAME, A or AAAA in the way.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import httpx
import pandas as pd

from zlh_dagster.core.changes import Change
from zlh_dagster.core.model import DriftKind, Record, Surface, records_frame
from zlh_dagster.core.names import normalise_name, srv_content
from zlh_dagster.core.redact import Redactor
from zlh_dagster.resources.edge import READ_TIMEOUT, WRITE_TIMEOUT, Rights, expect, field, srv_data
from zlh_dagster.resources.http import (
    AlreadyThere,
    ApiClient,
    HttpApi,
    Incomplete,
    Rejected,
    Unauthorized,
    Unreachable,
)

PER_PAGE = 5000
MAX_PAGES = 100
COMMENT = "zlh-dagster: repaired"
_AUTOMATIC_TTL = 1
_MAX_REASON = 130
_EXISTS = frozenset({81057, 81058})
_TYPES = frozenset({"A", "SRV", "CNAME"})


class Cloudflare(ApiClient):
    """The public zone.

    Args:
        base_url: The API with its ``/client/v4``.
        token: API token with DNS edit rights on the zone.
        zone_id: Cloudflare's identifier of the zone.
        transport: For tests.
    """

    surface = Surface.CLOUDFLARE
    at_once: ClassVar[int] = 2
    per_call: ClassVar[int] = 100

    def __init__(
        self,
        *,
        base_url: str,
        token: str,
        zone_id: str,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._redactor = Redactor([token])
        self._zone_path = f"/zones/{zone_id}"
        self._path = f"{self._zone_path}/dns_records"
        super().__init__(
            HttpApi(
                self.surface.value,
                base_url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=READ_TIMEOUT,
                transport=transport,
            )
        )

    def list_records(self) -> pd.DataFrame:
        """All records of the zone; every page is read and the sum checked against the total.

        Raises:
            EdgeError: If a page is missing, totals do not match, or the zone comes back empty
                (a zone that serves anybody has records; an empty answer is a fault of the answer).
        """
        rows: dict[str, dict[str, Any]] = {}
        page, pages, total = 1, 1, 0
        while page <= pages:
            listed, info = self._page(page)
            total_now = field(info, "total_count", int, "cloudflare: result_info")
            pages = max(field(info, "total_pages", int, "cloudflare: result_info"), 1)
            if page > 1 and total_now != total:
                raise Incomplete(f"cloudflare: the total changed from {total} to {total_now}")
            if pages > MAX_PAGES:
                raise Incomplete(f"cloudflare: {pages} pages are more than the limit {MAX_PAGES}")
            total = total_now
            for record in listed:
                rows[field(record, "id", str, "cloudflare")] = record
            page += 1
        if len(rows) != total:
            raise Incomplete(f"cloudflare: {len(rows)} records listed, the total says {total}")
        if not rows:
            raise Incomplete("cloudflare: the zone came back empty, which is taken for a fault")
        kept = [r for r in rows.values() if field(r, "type", str, "cloudflare") in _TYPES]
        return records_frame([_row(r) for r in kept])

    def apply(self, change: Change) -> None:
        """Creates the record, or changes the only one of its name and type in place.

        Raises:
            AlreadyThere: Codes 81057 and 81058.
            Rejected: Any other refusal, 81053 (another record in the way) among them.
            EdgeError: See ``HttpApi.call``.
        """
        body = _body(change.wanted)
        if change.kind is DriftKind.MISSING:
            self._request("POST", self._path, json=body, timeout=WRITE_TIMEOUT)
            return
        path = f"{self._path}/{_record_id(change)}"
        self._request("PATCH", path, json=body, timeout=WRITE_TIMEOUT)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """The same for several records in one call, which Cloudflare makes whole or not at all.

        Raises:
            AlreadyThere, Rejected, EdgeError: As :meth:`apply`; nothing was changed then, but for
                an answer that was lost.
        """
        missing = [c for c in changes if c.kind is DriftKind.MISSING]
        there = [c for c in changes if c.kind is not DriftKind.MISSING]
        body = {
            "patches": [{"id": _record_id(c), **_body(c.wanted)} for c in there],
            "posts": [_body(c.wanted) for c in missing],
        }
        self._request("POST", f"{self._path}/batch", json=body, timeout=WRITE_TIMEOUT)

    def rights(self) -> Rights:
        """Whether the token may edit records; only a token with Zone:Read can be asked.

        Raises:
            EdgeError: If the zone cannot be read for another reason.
        """
        try:
            answer = self._api.read(lambda: self._request("GET", self._zone_path))
        except Unauthorized:
            return Rights(unknown="the token lacks Zone:Read, without which Cloudflare tells none")
        zone = field(answer, "result", dict, "cloudflare: the answer")
        held = zone.get("permissions")
        if not isinstance(held, list):
            return Rights(unknown="Cloudflare did not tell")
        return Rights() if "#dns_records:edit" in held else Rights(missing=("DNS:Edit",))

    def _page(self, page: int) -> tuple[list[Any], dict[str, Any]]:
        query = {"page": page, "per_page": PER_PAGE}
        answer = self._api.read(lambda: self._request("GET", self._path, params=query))
        info = field(answer, "result_info", dict, "cloudflare: the answer")
        return field(answer, "result", list, "cloudflare: the answer"), info

    def _request(self, method: str, path: str, **options: Any) -> Any:
        status, answer = self._api.call(method, path, **options)
        if not isinstance(answer, dict) or "success" not in answer:
            raise Unreachable(f"cloudflare: HTTP {status} without a verdict")
        if answer["success"] is True and status < 400:
            return answer
        codes, text = _errors(answer.get("errors"), self._redactor)
        if codes & _EXISTS:
            raise AlreadyThere(f"cloudflare: {text}")
        raise Rejected(f"cloudflare: HTTP {status}, {text}")


def _record_id(change: Change) -> str:
    if change.found is None or change.found.record_id is None:
        raise Rejected(f"cloudflare: {change.describe()}, but no record to change is known")
    return change.found.record_id


def _errors(errors: Any, redactor: Redactor) -> tuple[set[int], str]:
    listed = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
    codes = {e["code"] for e in listed if isinstance(e.get("code"), int)}
    told = [
        redactor.beginning(f"{e.get('code')} {e.get('message')}", _MAX_REASON) for e in listed[:3]
    ]
    return codes, "; ".join(told) or "no reason given"


def _row(record: dict[str, Any]) -> dict[str, Any]:
    where = "cloudflare"
    ttl = field(record, "ttl", int, where)
    return {
        "surface": Surface.CLOUDFLARE.value,
        "name": normalise_name(field(record, "name", str, where)),
        "type": record["type"],
        "content": _content(record),
        # An automatic TTL is the provider's choice; comparing it would flap for ever.
        "ttl": None if ttl == _AUTOMATIC_TTL else ttl,
        "proxied": expect(record.get("proxied", False), bool, f"{where}: 'proxied'")
        if record["type"] == "A"
        else None,
        "record_id": record["id"],
    }


def _content(record: dict[str, Any]) -> str:
    if record["type"] != "SRV":
        return normalise_name(field(record, "content", str, "cloudflare"))
    data = field(record, "data", dict, "cloudflare: SRV")
    numbers = {k: field(data, k, int, "cloudflare: SRV") for k in ("priority", "weight", "port")}
    return srv_content(target=field(data, "target", str, "cloudflare: SRV"), **numbers)


def _body(record: Record) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": record.type,
        "name": record.name,
        "ttl": _AUTOMATIC_TTL if record.ttl is None else record.ttl,
        "comment": COMMENT,
    }
    if record.type == "SRV":
        body["data"] = srv_data(record)
    else:
        body |= {"content": record.content, "proxied": bool(record.proxied)}
    return body

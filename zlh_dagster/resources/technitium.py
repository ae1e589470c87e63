"""Technitium's HTTP API: one zone's records.

Every answer is HTTP 200; the verdict is the JSON field ``status``. The token travels as a bearer
header (Technitium 15 and later) and, should that be refused, as a form field, never in a URL.
"""

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

_RECORDS = "/api/zones/records"
_TYPES = frozenset({"A", "SRV", "CNAME"})


class Technitium(ApiClient):
    """The internal zone.

    Args:
        base_url: The server's URL, without ``/api``.
        token: API token with rights to modify the zone.
        zone: Zone name.
        transport: For tests.
    """

    surface = Surface.TECHNITIUM
    at_once: ClassVar[int] = 4
    per_call: ClassVar[int] = 1

    def __init__(
        self,
        *,
        base_url: str,
        token: str,
        zone: str,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._zone = zone
        self._token = token
        self._redactor = Redactor([token])
        self._token_in_form = False
        super().__init__(
            HttpApi(
                self.surface.value, base_url, headers={}, timeout=READ_TIMEOUT, transport=transport
            )
        )

    def list_records(self) -> pd.DataFrame:
        """All records of the zone, disabled ones marked.

        Raises:
            EdgeError: If the listing fails, has the wrong shape, or lacks the zone's SOA record,
                which every complete listing holds.
        """
        query = {"domain": self._zone, "zone": self._zone, "listZone": "true"}
        response = self._read(f"{_RECORDS}/get", query)
        listed = field(response, "records", list, "technitium: the answer")
        if not any(isinstance(r, dict) and r.get("type") == "SOA" for r in listed):
            raise Incomplete("technitium: the listing has no SOA record, so it is not whole")
        kept = [r for r in listed if field(r, "type", str, "technitium") in _TYPES]
        return records_frame([_row(r) for r in kept])

    def apply(self, change: Change) -> None:
        """Adds the record, or updates the only one of its name and type in place.

        Raises:
            AlreadyThere: The record exists.
            Rejected: Any other refusal.
            EdgeError: See ``HttpApi.call``.
        """
        wanted = change.wanted
        form = {
            "zone": self._zone,
            "domain": wanted.name,
            "type": wanted.type,
            "ttl": str(wanted.ttl),
        }
        if change.kind is DriftKind.MISSING:
            # `overwrite` is never sent: it would replace the whole record set.
            self._request(f"{_RECORDS}/add", {**form, **_values(wanted)}, write=True)
            return
        if change.found is None:
            raise Rejected(f"technitium: {change.describe()}, but no record to change is known")
        values = {**_values(change.found), **_new_values(wanted), "disable": "false"}
        self._request(f"{_RECORDS}/update", {**form, **values}, write=True)

    def rights(self) -> Rights:
        """Whether the token's user may change records of the zone.

        Raises:
            EdgeError: If Technitium does not say who that user is.
        """
        user = self._read("/api/user/profile/get", {})
        name = field(user, "username", str, "technitium: the profile")
        groups = user.get("memberOfGroups")
        names = {name, *(groups if isinstance(groups, list) else ())}
        try:
            held = self._read("/api/zones/permissions/get", {"zone": self._zone})
        except Rejected as error:
            return Rights(unknown=f"the user {name} may not read the zone's permissions ({error})")
        entries = [
            entry
            for kind in ("userPermissions", "groupPermissions")
            for entry in field(held, kind, list, "technitium: the permissions")
            if isinstance(entry, dict) and entry.get("username", entry.get("name")) in names
        ]
        if any(entry.get("canModify") is True for entry in entries):
            return Rights()
        return Rights(missing=(f"Modify on zone {self._zone} for the user {name}",))

    def _read(self, path: str, values: dict[str, str]) -> dict[str, Any]:
        answer = self._api.read(lambda: self._request(path, values))
        read: dict[str, Any] = field(answer, "response", dict, "technitium: the answer")
        return read

    def _request(self, path: str, values: dict[str, str], *, write: bool = False) -> Any:
        try:
            return self._send(path, values, write=write)
        except Unauthorized:
            # A write is sent once; the listing before it has found out how the token travels.
            if self._token_in_form or write:
                raise
        self._token_in_form = True
        try:
            return self._send(path, values, write=write)
        except Unauthorized:
            self._token_in_form = False
            raise

    def _send(self, path: str, values: dict[str, str], *, write: bool) -> Any:
        timeout = WRITE_TIMEOUT if write else READ_TIMEOUT
        if self._token_in_form:
            form = {**values, "token": self._token}
            status, answer = self._api.call("POST", path, data=form, timeout=timeout)
        else:
            headers = {"Authorization": f"Bearer {self._token}"}
            options: dict[str, Any] = {"data": values} if write else {"params": values}
            method = "POST" if write else "GET"
            status, answer = self._api.call(
                method, path, headers=headers, timeout=timeout, **options
            )
        return _verdict(status, answer, self._redactor)


def _verdict(status: int, answer: Any, redactor: Redactor) -> Any:
    if not isinstance(answer, dict) or "status" not in answer:
        raise Unreachable(f"technitium: HTTP {status} without a verdict")
    if answer["status"] == "ok":
        if status >= 400:
            raise Rejected(f"technitium: HTTP {status}, which its verdict 'ok' contradicts")
        return answer
    if answer["status"] == "invalid-token":
        raise Unauthorized("technitium: the token is not valid")
    message = redactor.beginning(str(answer.get("errorMessage", "no reason given")), 200)
    if "already exists" in message:
        raise AlreadyThere(f"technitium: {message}")
    raise Rejected(f"technitium: {message}")


def _row(record: dict[str, Any]) -> dict[str, Any]:
    where = "technitium"
    data = field(record, "rData", dict, where)
    kind = record["type"]
    if kind == "A":
        content = field(data, "ipAddress", str, where)
    elif kind == "CNAME":
        content = normalise_name(field(data, "cname", str, where))
    else:
        numbers = {k: field(data, k, int, where) for k in ("priority", "weight", "port")}
        content = srv_content(target=field(data, "target", str, where), **numbers)
    return {
        "surface": Surface.TECHNITIUM.value,
        "name": normalise_name(field(record, "name", str, where)),
        "type": kind,
        "content": content,
        "ttl": field(record, "ttl", int, where),
        "disabled": expect(record.get("disabled", False), bool, f"{where}: 'disabled'"),
    }


def _values(record: Record) -> dict[str, str]:
    if record.type == "A":
        return {"ipAddress": str(record.content)}
    return {name: str(value) for name, value in srv_data(record).items()}


def _new_values(record: Record) -> dict[str, str]:
    return {f"new{name[0].upper()}{name[1:]}": v for name, v in _values(record).items()}

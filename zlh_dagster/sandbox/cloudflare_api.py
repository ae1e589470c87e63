"""The calls of Cloudflare's v4 API that concern DNS records."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from zlh_dagster.sandbox.cloudflare_records import CloudflareRecord, CloudflareTable
from zlh_dagster.sandbox.cloudflare_rules import (
    Refused,
    build_record,
    normal_name,
    refuse_conflicts,
)
from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.exchange import Answer, Call, Handler, JsonObject

_PER_PAGE_DEFAULT = 100
_PER_PAGE_MAX = 5000
_BATCH_MAX = 200


@dataclass(frozen=True, slots=True)
class ResultInfo:
    """Where a page stands in its listing."""

    page: int
    per_page: int
    count: int
    total_count: int
    total_pages: int


def success(result: Any, info: ResultInfo | None = None) -> Answer:
    """The envelope of a call that went well."""
    body = {"result": result, "success": True, "errors": [], "messages": []}
    if info is not None:
        body["result_info"] = asdict(info)
    return Answer(body=body)


def failure(code: int, message: str, *, status: int = 400) -> Answer:
    """The envelope of a call that did not."""
    errors = [{"code": code, "message": message}]
    body = {"result": None, "success": False, "errors": errors, "messages": []}
    return Answer(status=status, body=body)


class CloudflareApi:
    """Answers calls on the records of one zone."""

    def __init__(self, config: SandboxConfig, table: CloudflareTable) -> None:
        self._config = config
        self._table = table

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind token and zone, whose refusals become envelopes."""

        def answer(call: Call) -> Answer:
            try:
                self._check(call)
                return handler(call)
            except Refused as refusal:
                return failure(refusal.code, refusal.message, status=refusal.status)

        return answer

    def read_zone(self, call: Call) -> Answer:
        """The zone itself, with what the token may do in it."""
        verbs = ("edit", "read") if self._config.cloudflare_may_edit else ("read",)
        return success(
            {
                "id": self._config.zone_id,
                "name": self._config.zone,
                "status": "active",
                "paused": False,
                "type": "full",
                "permissions": [*(f"#dns_records:{verb}" for verb in verbs), "#zone:read"],
            }
        )

    def list_records(self, call: Call) -> Answer:
        """One page of the zone."""
        page = _whole_number(call, "page", 1)
        per_page = _whole_number(call, "per_page", _PER_PAGE_DEFAULT)
        if per_page > _PER_PAGE_MAX:
            raise Refused(1004, f"per_page must be at most {_PER_PAGE_MAX}.")
        found = self._filtered(call)
        rows = found[(page - 1) * per_page : page * per_page]
        info = ResultInfo(page, per_page, len(rows), len(found), -(-len(found) // per_page))
        return success([record.to_json() for record in rows], info)

    def create(self, call: Call) -> Answer:
        """Make a record; never replaces one."""
        return success(self._create(_body(call)))

    def read(self, call: Call) -> Answer:
        """One record."""
        return success(self._existing(call.params["record_id"]).to_json())

    def patch(self, call: Call) -> Answer:
        """Change the fields that were sent."""
        return success(self._patch(call.params["record_id"], _body(call)))

    def put(self, call: Call) -> Answer:
        """Replace all fields of a record."""
        return success(self._put(call.params["record_id"], _body(call)))

    def delete(self, call: Call) -> Answer:
        """Take a record away."""
        return success({"id": self._delete(call.params["record_id"])["id"]})

    def batch(self, call: Call) -> Answer:
        """Deletes, patches, puts and posts, in this order: all of them or none."""
        body = _body(call)
        steps = {kind: body.get(kind) or [] for kind in ("deletes", "patches", "puts", "posts")}
        for kind, items in steps.items():
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise Refused(1004, f"DNS Validation Error: {kind} must be a list of objects.")
        wanted = sum(len(items) for items in steps.values())
        if not 0 < wanted <= _BATCH_MAX:
            raise Refused(1004, f"A batch takes 1 to {_BATCH_MAX} operations, not {wanted}.")
        before = self._table.checkpoint()
        try:
            return success(
                {
                    "deletes": [self._delete(_id_of(item)) for item in steps["deletes"]],
                    "patches": [self._patch(_id_of(item), item) for item in steps["patches"]],
                    "puts": [self._put(_id_of(item), item) for item in steps["puts"]],
                    "posts": [self._create(item) for item in steps["posts"]],
                }
            )
        except Refused:
            self._table.restore(before)
            raise

    def no_route(self, call: Call) -> Answer:
        """A path that the pretend API does not have."""
        return failure(7000, "No route for that URI", status=404)

    def _check(self, call: Call) -> None:
        token = call.bearer()
        if token is None:
            raise Refused(10000, "Authentication error", status=403)
        if token != self._config.cloudflare_token:
            raise Refused(9109, "Invalid access token", status=403)
        if call.method != "GET" and not self._config.cloudflare_may_edit:
            raise Refused(10000, "Authentication error", status=403)
        zone_id = call.params.get("zone_id", self._config.zone_id)
        if zone_id != self._config.zone_id:
            raise Refused(
                7003,
                f"Could not route to /zones/{zone_id}/dns_records, "
                "perhaps your object identifier is invalid?",
                status=404,
            )

    def _filtered(self, call: Call) -> list[CloudflareRecord]:
        name, record_type = call.query.get("name"), call.query.get("type")
        if name:
            found = self._table.named(normal_name(name, self._config.zone))
        else:
            found = self._table.records()
        if record_type:
            found = [record for record in found if record.type == record_type.upper()]
        return found

    def _existing(self, record_id: str) -> CloudflareRecord:
        record = self._table.get(record_id)
        if record is None:
            raise Refused(81044, "Record does not exist.", status=404)
        return record

    def _create(self, body: JsonObject) -> JsonObject:
        return self._store(build_record(body, zone=self._config.zone))

    def _patch(self, record_id: str, body: JsonObject) -> JsonObject:
        old = self._existing(record_id)
        return self._store(build_record(body, zone=self._config.zone, old=old))

    def _put(self, record_id: str, body: JsonObject) -> JsonObject:
        old = self._existing(record_id)
        made = build_record(body, zone=self._config.zone)
        return self._store(replace(made, id=old.id, created_on=old.created_on))

    def _delete(self, record_id: str) -> JsonObject:
        record = self._existing(record_id)
        self._table.remove(record_id)
        return record.to_json()

    def _store(self, record: CloudflareRecord) -> JsonObject:
        refuse_conflicts(self._table, record)
        self._table.put(record)
        return record.to_json()


def _body(call: Call) -> JsonObject:
    body = call.json_object()
    if body is None:
        raise Refused(9207, "Request body is invalid.")
    return body


def _id_of(item: JsonObject) -> str:
    return str(item.get("id", ""))


def _whole_number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise Refused(1004, f"{name} must be a whole number from 1.")
    return int(text)

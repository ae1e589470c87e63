"""The calls of Technitium's HTTP API that concern the records of a zone."""

from collections.abc import Mapping

from zlh_dagster.sandbox.config import SandboxConfig
from zlh_dagster.sandbox.exchange import Answer, Call, Handler, JsonObject
from zlh_dagster.sandbox.technitium_fields import (
    Refused,
    domain_name,
    flag,
    new_record_data,
    record_data,
    required,
    time_to_live,
)
from zlh_dagster.sandbox.technitium_records import TechnitiumRecord, TechnitiumTable

_USER = "zlh"
_GROUP = "Controllers"


def failure(message: str) -> Answer:
    """What Technitium says when a call goes wrong: HTTP 200 all the same."""
    return Answer(body={"status": "error", "errorMessage": message})


def invalid_token() -> Answer:
    """What Technitium says to a token that it does not know."""
    body = {"status": "invalid-token", "errorMessage": "Invalid token or session expired."}
    return Answer(body=body)


class TechnitiumApi:
    """Answers calls on the records of one zone."""

    def __init__(self, config: SandboxConfig, table: TechnitiumTable) -> None:
        self._config = config
        self._table = table
        self._serial = 1

    def guarded(self, handler: Handler) -> Handler:
        """A handler behind token and rights, whose refusals become ``status: error``."""
        writes = (self.add, self.update, self.delete)

        def answer(call: Call) -> Answer:
            if self._token(call) != self._config.technitium_token:
                return invalid_token()
            try:
                if not self._config.technitium_may_modify and handler in writes:
                    raise Refused("Access was denied.")
                return handler(call)
            except Refused as refusal:
                return failure(str(refusal))

        return answer

    def profile(self, call: Call) -> Answer:
        """The user to whom the token belongs."""
        response = {"username": _USER, "displayName": _USER, "memberOfGroups": [_GROUP]}
        return Answer(body={"status": "ok", "response": response})

    def permissions(self, call: Call) -> Answer:
        """Who may do what in the zone."""
        fields = call.fields()
        self._domain({**fields, "domain": required(fields, "zone")})
        may = self._config.technitium_may_modify
        rights = {"canView": True, "canModify": may, "canDelete": may}
        response = {
            "section": "Zones",
            "subItem": self._config.zone,
            "userPermissions": [{"username": "somebody-else", **rights, "canModify": True}],
            "groupPermissions": [{"name": _GROUP, **rights}],
        }
        return Answer(body={"status": "ok", "response": response})

    def get(self, call: Call) -> Answer:
        """The records of one name, or of the whole zone."""
        fields = call.fields()
        domain = self._domain(fields)
        whole = flag(fields, "listZone")
        records = self._table.records() if whole else self._table.named(domain)
        return self._success({"records": [self._shown(record) for record in records]})

    def add(self, call: Call) -> Answer:
        """Add a record, or with ``overwrite`` replace all of its name and type."""
        fields = call.fields()
        domain = self._domain(fields)
        record_type = required(fields, "type").upper()
        record = TechnitiumRecord(
            name=domain,
            type=record_type,
            data=record_data(record_type, fields),
            ttl=time_to_live(fields),
            comments=fields.get("comments", ""),
        )
        if flag(fields, "overwrite"):
            for other in self._table.named(domain):
                if other.type == record_type:
                    self._table.remove(other.key())
        elif self._table.get(record.key()) is not None:
            raise Refused("Cannot add record: record already exists.")
        if any("CNAME" in {record_type, o.type} for o in self._table.named(domain)):
            raise Refused("Cannot add record: a CNAME record must stand alone at its name.")
        self._store(record)
        return self._success({"addedRecord": record.to_json()})

    def update(self, call: Call) -> Answer:
        """Replace one record, named by its old values."""
        fields = call.fields()
        old = self._existing("update", fields)
        record = TechnitiumRecord(
            name=self._domain({**fields, "domain": fields.get("newDomain") or old.name}),
            type=old.type,
            data=new_record_data(old.type, fields),
            ttl=time_to_live(fields),
            disabled=flag(fields, "disable"),
            comments=fields.get("comments", ""),
        )
        if record.key() != old.key():
            if self._table.get(record.key()) is not None:
                raise Refused("Cannot update record: record already exists.")
            self._table.remove(old.key())
        self._store(record)
        return self._success({"updatedRecord": record.to_json()})

    def delete(self, call: Call) -> Answer:
        """Take one record away, named by its values."""
        self._table.remove(self._existing("delete", call.fields()).key())
        self._serial += 1
        return Answer(body={"status": "ok", "response": {}})

    def no_route(self, call: Call) -> Answer:
        """A path that the pretend API does not have."""
        return Answer(status=404, raw=b"", media_type="text/plain")

    def _token(self, call: Call) -> str | None:
        bearer = call.bearer() if self._config.technitium_bearer else None
        return bearer or call.fields().get("token")

    def _domain(self, fields: Mapping[str, str]) -> str:
        """The name that a call is about, checked against the zone."""
        domain = domain_name(required(fields, "domain"))
        zone = domain_name(fields.get("zone") or self._config.zone)
        if zone != self._config.zone:
            raise Refused(f"No such zone was found: {zone}")
        if domain != zone and not domain.endswith(f".{zone}"):
            if "zone" in fields:
                raise Refused(f"The domain name does not belong to the zone: {domain}")
            raise Refused(f"No such zone was found: {domain}")
        return domain

    def _existing(self, verb: str, fields: Mapping[str, str]) -> TechnitiumRecord:
        domain = self._domain(fields)
        record_type = required(fields, "type").upper()
        found = self._table.get((domain, record_type, record_data(record_type, fields)))
        if found is None:
            raise Refused(f"Cannot {verb} record: no such record exists at {domain}.")
        return found

    def _store(self, record: TechnitiumRecord) -> None:
        self._table.put(record)
        self._serial += 1

    def _shown(self, record: TechnitiumRecord) -> JsonObject:
        shown = record.to_json()
        if record.type == "SOA":
            shown["rData"]["serial"] = self._serial
        return shown

    def _success(self, response: JsonObject) -> Answer:
        zone = {
            "name": self._config.zone,
            "type": "Primary",
            "internal": False,
            "dnssecStatus": "SignedWithNSEC",
            "soaSerial": self._serial,
            "disabled": False,
        }
        return Answer(body={"status": "ok", "response": {"zone": zone, **response}})

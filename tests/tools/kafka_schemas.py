#!/usr/bin/env python3
"""Turns the JSON schemas inside Kafka's jars into Rust source.

    tests/tools/kafka_schemas.py --clients kafka-clients-4.3.0.jar --metadata kafka-metadata-4.3.0.jar

writes sdk/wire/src/schema/tables.rs (what the length walk interprets),
sdk/wire/src/metadata_records/generated.rs (the records of the metadata log) and
tests/src/fidelity/schemas.jsonl (messages with the names of their fields). With --check it writes
nothing and fails if the committed files differ. Standard library only; rustfmt is not needed.
"""

import argparse
import json
import pathlib
import re
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLES = ROOT / "sdk/wire/src/schema/tables.rs"
RECORDS = ROOT / "sdk/wire/src/metadata_records/generated.rs"
NAMED = ROOT / "tests/src/fidelity/schemas.jsonl"

# Records of the metadata log that broker-lite writes or understands.
RECORD_NAMES = [
    "RegisterBroker", "UnregisterBroker", "Topic", "Partition", "Config", "PartitionChange",
    "RemoveTopic", "FeatureLevel", "ProducerIds", "BrokerRegistrationChange", "NoOp",
]
LAST = 127  # "and every later version" in a table


def load(jar, folder):
    """Every schema below `folder` in `jar`, by name."""
    schemas = {}
    with zipfile.ZipFile(jar) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(folder) and name.endswith(".json"):
                text = re.sub(r"^\s*//.*$", "", archive.read(name).decode(), flags=re.M)
                schema = json.loads(text)
                schemas[schema["name"]] = schema
    if not schemas:
        sys.exit(f"{jar}: no schemas below {folder}")
    return schemas


def versions(text):
    """`3`, `1-4`, `2+` or `none` as (lowest, highest); nothing is (1, 0)."""
    if text in (None, "none"):
        return (1, 0)
    if text.endswith("+"):
        return (int(text[:-1]), LAST)
    low, _, high = text.partition("-")
    return (int(low), int(high or low))


def snake(name):
    """`EndPoints` to `end_points`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


# ---------------------------------------------------------------------------------------------
# Records of the metadata log

SCALARS = {
    "bool": "bool", "int8": "i8", "int16": "i16", "uint16": "u16", "int32": "i32", "int64": "i64",
    "string": "String", "uuid": "Uuid",
}
SIZES = {"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "int64": 8, "uuid": 16}


class Field:
    """One field of a record, with what Rust needs to know."""

    def __init__(self, json_field, valid):
        self.json = json_field
        self.name = snake(json_field["name"])
        self.kafka_name = json_field["name"]
        self.type = json_field["type"]
        self.low, self.high = versions(json_field["versions"])
        self.tag = json_field.get("tag")
        self.nullable = "nullableVersions" in json_field
        self.always = self.low <= valid[0] and self.high >= valid[1]
        if self.high < valid[1]:
            sys.exit(f"{self.kafka_name}: fields that end before the last version are not supported")

    def rust(self):
        base = self.type.removeprefix("[]")
        rust = SCALARS.get(base, base)
        if self.type.startswith("[]"):
            rust = f"Vec<{rust}>"
        return f"Option<{rust}>" if self.nullable else rust

    def default(self):
        """The schema's default as a Rust expression."""
        text = self.json.get("default")
        if self.nullable:
            return "None" if text == "null" else ("Some(String::new())" if self.type == "string" else "Some(Vec::new())")
        if self.type.startswith("[]"):
            return "Vec::new()"
        if self.type == "bool":
            return text or "false"
        if self.type == "string":
            return "String::new()"
        if self.type == "uuid":
            return "Uuid::nil()"
        return text or "0"

    def is_set(self, owner):
        """A Rust condition: the value differs from the default, so that its tag must be sent."""
        default = self.default()
        if default == "None":
            return f"{owner}.{self.name}.is_some()"
        if default == "Vec::new()":
            return f"!{owner}.{self.name}.is_empty()"
        return f"{owner}.{self.name} != {default}"

    def derives(self):
        return self.default() in ("None", "Vec::new()", "String::new()", "Uuid::nil()", "0", "false")


def since(field):
    span = "every version" if field.always else f"from version {field.low}"
    return f"{span}, tag {field.tag}" if field.tag is not None else span


def record_struct(name, fields, doc, valid):
    """Struct, default and codec of one record or of an element in it."""
    out = [f"/// {doc}"]
    plain_default = all(f.derives() for f in fields)
    out.append("#[derive(Debug, Clone, %sPartialEq, Eq)]" % ("Default, " if plain_default else ""))
    if not fields:
        out.append(f"pub struct {name} {{}}")
    else:
        out.append(f"pub struct {name} {{")
        for f in fields:
            out.append(f"    /// `{f.kafka_name}`, {f.type}{', nullable' if f.nullable else ''}, {since(f)}.")
            out.append(f"    pub {f.name}: {f.rust()},")
        out.append("}")
    if not plain_default:
        out += ["", f"impl Default for {name} {{", "    fn default() -> Self {", "        Self {"]
        out += [f"            {f.name}: {f.default()}," for f in fields]
        out += ["        }", "    }", "}"]
    tagged = sorted((f for f in fields if f.tag is not None), key=lambda f: f.tag)
    plain = [f for f in fields if f.tag is None]
    smallest = sum(SIZES.get(f.type, 1) for f in plain if f.always) + 1
    out += ["", f"impl Value for {name} {{", f"    const MIN_BYTES: usize = {smallest};", ""]
    version = "version" if fields else "_"
    out.append(f"    fn write(&self, {version}: i16, out: &mut BytesMut) {{")
    for f in plain:
        line = f"self.{f.name}.write(version, out);"
        out.append(f"        {line}" if f.always else f"        if version >= {f.low} {{ {line} }}")
    out.append(f"        let {'mut ' if tagged else ''}tags = TagWriter::default();")
    for f in tagged:
        guard = "" if f.always else f"version >= {f.low} && "
        out.append(f"        if {guard}{f.is_set('self')} {{ tags.put({f.tag}, version, &self.{f.name}); }}")
    out += ["        tags.finish(out);", "    }", ""]
    out.append(f"    fn read({version}: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {{")
    out.append(f"        let {'mut ' if fields else ''}record = Self::default();")
    for f in plain:
        line = f"record.{f.name} = Value::read(version, bytes)?;"
        out.append(f"        {line}" if f.always else f"        if version >= {f.low} {{ {line} }}")
    out.append("        let mut tags = bytes.tags()?;")
    if tagged:
        out.append("        while let Some((tag, mut content)) = tags.next(bytes)? {")
        out.append("            match tag {")
        for f in tagged:
            guard = "" if f.always else f" if version >= {f.low}"
            out.append(f"                {f.tag}{guard} => record.{f.name} = read_whole(version, &mut content)?,")
        out += ["                _ => {}", "            }", "        }"]
    else:
        out.append("        while tags.next(bytes)?.is_some() {}")
    out += ["        Ok(record)", "    }", "}", ""]
    return out


def records(schemas):
    chosen = [schemas[f"{name}Record"] for name in RECORD_NAMES]
    chosen.sort(key=lambda s: s["apiKey"])
    out = [
        "//! The records themselves.",
        "//!",
        "//! Generated from Kafka 4.3.0's schemas by tests/tools/kafka_schemas.py; do not edit.",
        "#![cfg_attr(rustfmt, rustfmt::skip)]",
        "#![allow(clippy::field_reassign_with_default)]",
        "",
        "use bytes::BytesMut;",
        "use uuid::Uuid;",
        "",
        "use super::value::{TagWriter, Value, read_whole};",
        "use crate::schema::{Cursor, Malformed};",
        "",
        "/// One record of the metadata log.",
        "#[derive(Debug, Clone, PartialEq, Eq)]",
        "#[non_exhaustive]",
        "pub enum MetadataRecord {",
    ]
    for s in chosen:
        short = s["name"].removesuffix("Record")
        out += [f"    /// Type {s['apiKey']}.", f"    {short}({s['name']}),"]
    out += ["}", "", "impl MetadataRecord {"]
    out += ["    /// Record type and the version it is written in.", "    pub(super) fn stamp(&self) -> (u32, i16) {", "        match self {"]
    for s in chosen:
        out.append(f"            Self::{s['name'].removesuffix('Record')}(_) => ({s['apiKey']}, {versions(s['validVersions'])[1]}),")
    out += ["        }", "    }", ""]
    out += ["    pub(super) fn write(&self, version: i16, out: &mut BytesMut) {", "        match self {"]
    for s in chosen:
        out.append(f"            Self::{s['name'].removesuffix('Record')}(record) => record.write(version, out),")
    out += ["        }", "    }", ""]
    out += ["    /// Highest version known of a record type.", "    pub(super) fn last_version(kind: u32) -> Option<i16> {", "        match kind {"]
    for s in chosen:
        out.append(f"            {s['apiKey']} => Some({versions(s['validVersions'])[1]}),")
    out += ["            _ => None,", "        }", "    }", ""]
    out += ["    /// Reads the record of a type for which [`Self::last_version`] knows a version.",
            "    pub(super) fn read(kind: u32, version: i16, bytes: &mut Cursor<'_>) -> Result<Option<Self>, Malformed> {",
            "        Ok(Some(match kind {"]
    for s in chosen:
        out.append(f"            {s['apiKey']} => Self::{s['name'].removesuffix('Record')}(Value::read(version, bytes)?),")
    out += ["            _ => return Ok(None),", "        }))", "    }", "}", ""]
    for s in chosen:
        name = s["name"].removesuffix("Record")
        out += [f"impl From<{s['name']}> for MetadataRecord {{", f"    fn from(record: {s['name']}) -> Self {{",
                f"        Self::{name}(record)", "    }", "}", ""]
    for s in chosen:
        low, high = versions(s["validVersions"])
        if versions(s["flexibleVersions"]) != (0, LAST):
            sys.exit(f"{s['name']}: only flexible records are supported")
        fields = [Field(f, (low, high)) for f in s["fields"]]
        span = f"version {low}" if low == high else f"versions {low} to {high}"
        out += record_struct(s["name"], fields, f"Metadata record type {s['apiKey']}, {span}.", (low, high))
        for f in s["fields"]:
            if "fields" in f:
                element = f["type"].removeprefix("[]")
                inner = [Field(g, (low, high)) for g in f["fields"]]
                out += record_struct(element, inner, f"Element of [`{s['name']}::{snake(f['name'])}`].", (low, high))
    return "\n".join(out).rstrip() + "\n"


# ---------------------------------------------------------------------------------------------
# Tables for the length walk

FIXED = {"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "int64": 8, "float64": 8, "uuid": 16}


class Tables:
    """Collects structures; each gets a number."""

    def __init__(self):
        self.lines = []

    def add(self, name, fields, common, path=()):
        """Adds a structure and what it contains; returns its number."""
        if name in path:
            sys.exit(f"{name} contains itself: the walk's depth would have no bound")
        rows = [self.row(f, common, path + (name,)) for f in fields]
        self.lines.append((name, rows))
        return len(self.lines) - 1

    def row(self, field, common, path):
        kind = field["type"]
        array = kind.startswith("[]")
        base = kind.removeprefix("[]")
        if base in FIXED:
            shape = f"Fixeds({FIXED[base]})" if array else f"Fixed({FIXED[base]})"
        elif base == "string":
            shape = "Texts" if array else "Text"
        elif base in ("bytes", "records") and not array:
            shape = "Blob"
        elif base[0].isupper():
            number = self.add(base, field.get("fields") or common[base], common, path)
            shape = f"Structs({number})" if array else f"Struct({number})"
        else:
            sys.exit(f"{path}: unknown type {kind}")
        low, high = versions(field["versions"])
        null = versions(field.get("nullableVersions"))
        tag = field.get("tag", -1)
        if tag >= 0 and versions(field["taggedVersions"]) != (low, high):
            sys.exit(f"{path}: {field['name']} is tagged in some of its versions only")
        if "flexibleVersions" in field:
            sys.exit(f"{path}: {field['name']} has flexible versions of its own")
        return "F(%s, %s)" % (shape, ", ".join("L" if n == LAST else str(n) for n in (low, high, *null, tag)))


def tables(schemas):
    pairs = {}
    for schema in schemas.values():
        if schema["type"] in ("request", "response") and schema["validVersions"] != "none":
            pairs.setdefault(schema["apiKey"], {})[schema["type"]] = schema
    found, apis = Tables(), []
    for key, pair in sorted(pairs.items()):
        sides = []
        for side in ("request", "response"):
            schema = pair[side]
            common = {c["name"]: c["fields"] for c in schema.get("commonStructs", [])}
            low, high = versions(schema["validVersions"])
            flexible, _ = versions(schema["flexibleVersions"])
            if schema["flexibleVersions"] == "none":
                flexible = "L"
            root = found.add(schema["name"], schema["fields"], common)
            sides.append(f"M({low}, {high}, {flexible}, {root})")
        name = pair["request"]["name"].removesuffix("Request")
        apis.append(f"    A({key}, {', '.join(sides)}), // {name}")
    out = [
        "//! What the walk interprets: every request and response of Kafka 4.3.0.",
        "//!",
        "//! Generated from Kafka 4.3.0's schemas by tests/tools/kafka_schemas.py; do not edit.",
        "#![cfg_attr(rustfmt, rustfmt::skip)]",
        "",
        "use super::table::Shape::{Blob, Fixed, Fixeds, Struct, Structs, Text, Texts};",
        "use super::table::{Api, Api as A, FOREVER as L, Field, Field as F, Message as M};",
        "",
        "/// Api key, request, response; a message is lowest, highest, first flexible version and its structure. By api key.",
        f"pub(super) static APIS: [Api; {len(apis)}] = [",
        *apis,
        "];",
        "",
        "/// Fields: shape, first and last version, first and last nullable version, tag or -1.",
        f"pub(super) static STRUCTS: [&[Field]; {len(found.lines)}] = [",
    ]
    for number, (name, rows) in enumerate(found.lines):
        out.append(f"    /* {number} {name} */ &[{', '.join(rows)}],")
    return "\n".join(out + ["];"]) + "\n"


# ---------------------------------------------------------------------------------------------
# Messages with the names of their fields, for whoever compares them without our codec


def named_field(field, common):
    """One field, with what it contains written out."""
    out = {"name": field["name"], "type": field["type"], "versions": versions(field["versions"])}
    if "nullableVersions" in field:
        out["nullable"] = versions(field["nullableVersions"])
    if "tag" in field:
        out["tag"] = field["tag"]
    if "default" in field:
        out["default"] = str(field["default"]).lower() if isinstance(field["default"], bool) else str(field["default"])
    base = field["type"].removeprefix("[]")
    if base[0].isupper():
        out["fields"] = [named_field(f, common) for f in field.get("fields") or common[base]]
    return out


def named(schemas):
    pairs = {}
    for schema in schemas.values():
        if schema["type"] in ("request", "response") and schema["validVersions"] != "none":
            pairs.setdefault(schema["apiKey"], {})[schema["type"]] = schema
    lines = []
    for key, pair in sorted(pairs.items()):
        line = {"key": key, "name": pair["request"]["name"].removesuffix("Request")}
        for side in ("request", "response"):
            schema = pair[side]
            common = {c["name"]: c["fields"] for c in schema.get("commonStructs", [])}
            line[side] = {
                "versions": versions(schema["validVersions"]),
                "flexible": versions(schema["flexibleVersions"])[0] if schema["flexibleVersions"] != "none" else LAST,
                "fields": [named_field(f, common) for f in schema["fields"]],
            }
        lines.append(json.dumps(line, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", required=True, help="path of kafka-clients-VERSION.jar")
    parser.add_argument("--metadata", required=True, help="path of kafka-metadata-VERSION.jar")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    args = parser.parse_args()
    messages = load(args.clients, "common/message/")
    wanted = {
        TABLES: tables(messages),
        NAMED: named(messages),
        RECORDS: records(load(args.metadata, "common/metadata/")),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if args.check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} differs from what the jars say", file=sys.stderr)
        sys.exit(1 if stale else 0)
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()

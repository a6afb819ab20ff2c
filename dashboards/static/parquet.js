/* Writes a table as a Parquet file: KERNL_PARQUET(columns) gives the file's bytes.

   A column is {name, kind: "number" or "text", values}; a value that is missing is null.

   The format is specified in apache/parquet-format: README.md has the order of things in a file,
   Encodings.md how values are written, src/main/thrift/parquet.thrift the metadata. This is the
   smallest part of it that holds a table. From its first byte to its last a file is

     PAR1 | a page of each column | metadata | length of the metadata | PAR1

   so a reader begins at the end: the metadata says where the page of each column begins. All rows
   are one row group, values are PLAIN and not compressed, and any column may miss values.

   Metadata is structs in Thrift's compact protocol, specified in apache/thrift,
   doc/specs/thrift-compact-protocol.md. A struct is told here as {1: value, 4: value}: fields have
   numbers, no names, and one that is optional may be left out. */
(function () {
  "use strict";

  var MAGIC = [80, 65, 82, 49]; /* "PAR1" */
  var utf8 = new TextEncoder();

  /* Numbers that parquet.thrift gives to names. */
  var DOUBLE = 5;
  var BYTE_ARRAY = 6;
  var OPTIONAL = 1;
  var CONVERTED_UTF8 = 0;
  var PLAIN = 0;
  var RLE = 3;
  var UNCOMPRESSED = 0;
  var DATA_PAGE = 0;
  var VERSION = 1;

  /* ---- Thrift's compact protocol: each value is the number of its type, and its bytes ---- */

  var I32 = 5;
  var I64 = 6;
  var BINARY = 8;
  var LIST = 9;
  var STRUCT = 12;

  /** A number in groups of seven bits, the lowest first; the eighth bit says that more follow. */
  function varint(number) {
    var bytes = [];
    while (number > 127) {
      bytes.push(128 + (number % 128));
      number = Math.floor(number / 128);
    }
    bytes.push(number);
    return bytes;
  }

  /* A signed number is doubled, or doubled less one where it is below 0; here none is. */

  function i32(number) {
    return { type: I32, bytes: varint(2 * number) };
  }

  function i64(number) {
    return { type: I64, bytes: varint(2 * number) };
  }

  function string(text) {
    var bytes = Array.from(utf8.encode(text));
    return { type: BINARY, bytes: varint(bytes.length).concat(bytes) };
  }

  /** Length and type share a byte where the length is below 15. */
  function list(type, values) {
    var count = values.length;
    var head = count < 15 ? [16 * count + type] : [16 * 15 + type].concat(varint(count));
    var each = values.map(function (value) {
      return value.bytes;
    });
    return { type: LIST, bytes: head.concat.apply(head, each) };
  }

  /** Before each field a byte: by how much its number is above the last one's, and its type. */
  function struct(fields) {
    var bytes = [];
    var last = 0;
    Object.keys(fields).map(Number).forEach(function (number) {
      var value = fields[number];
      bytes = bytes.concat(16 * (number - last) + value.type, value.bytes);
      last = number;
    });
    return { type: STRUCT, bytes: bytes.concat(0) };
  }

  /* ---- what a page holds ---- */

  function joined(parts) {
    var size = parts.reduce(function (sum, part) {
      return sum + part.length;
    }, 0);
    var bytes = new Uint8Array(size);
    var at = 0;
    parts.forEach(function (part) {
      bytes.set(part, at);
      at += part.length;
    });
    return bytes;
  }

  /** A number as four bytes, the lowest first. */
  function uint32(number) {
    var bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, number, true);
    return bytes;
  }

  function double(number) {
    var bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, number, true);
    return bytes;
  }

  function isThere(value) {
    return value !== null;
  }

  /** Which values are there, as runs: the length of each, doubled, then 1 for there, 0 for not. */
  function definitionLevels(values) {
    var runs = [];
    var begin = 0;
    values.forEach(function (value, place) {
      var next = place + 1;
      if (next === values.length || isThere(values[next]) !== isThere(value)) {
        Array.prototype.push.apply(runs, varint(2 * (next - begin)));
        runs.push(isThere(value) ? 1 : 0);
        begin = next;
      }
    });
    return joined([uint32(runs.length), runs]);
  }

  /** The values that are there, one after another; a text has its length in front. */
  function plain(column) {
    var parts = [];
    column.values.filter(isThere).forEach(function (value) {
      if (column.kind === "number") {
        parts.push(double(value));
      } else {
        var text = utf8.encode(value);
        parts.push(uint32(text.length), text);
      }
    });
    return joined(parts);
  }

  /** A column's only page: a struct PageHeader, then levels and values. */
  function page(column) {
    var content = joined([definitionLevels(column.values), plain(column)]);
    var ofValues = struct({
      1: i32(column.values.length), 2: i32(PLAIN), 3: i32(RLE), 4: i32(RLE),
    });
    var header = struct({
      1: i32(DATA_PAGE), 2: i32(content.length), 3: i32(content.length), 5: ofValues,
    });
    return joined([header.bytes, content]);
  }

  /* ---- the metadata ---- */

  function typeOf(column) {
    return column.kind === "number" ? DOUBLE : BYTE_ARRAY;
  }

  /** A struct SchemaElement: what a column is. Text is named twice, for old and new readers. */
  function element(column, name) {
    var fields = { 1: i32(typeOf(column)), 3: i32(OPTIONAL), 4: string(name) };
    if (column.kind !== "number") {
      fields[6] = i32(CONVERTED_UTF8);
      fields[10] = struct({ 1: struct({}) });
    }
    return struct(fields);
  }

  /** A struct ColumnChunk: where the page of a column is. */
  function chunk(column, name, offset, size) {
    var about = struct({
      1: i32(typeOf(column)), 2: list(I32, [i32(PLAIN), i32(RLE)]), 3: list(BINARY, [string(name)]),
      4: i32(UNCOMPRESSED), 5: i64(column.values.length), 6: i64(size), 7: i64(size),
      9: i64(offset),
    });
    return struct({ 2: i64(0), 3: about });
  }

  /** Names that differ: the second "time" becomes "time 2". Half a surrogate pair is no text. */
  function distinct(columns) {
    var taken = new Set();
    var names = columns.map(function (column) {
      return column.name.replace(/[\ud800-\udfff]/gu, "\ufffd");
    });
    return names.map(function (name) {
      var own = name;
      for (var number = 2; taken.has(own) || (own !== name && names.includes(own)); number += 1) {
        own = name + " " + number;
      }
      taken.add(own);
      return own;
    });
  }

  /** The bytes of a file; all columns have as many values. Without rows it has no row group. */
  function write(columns) {
    var count = columns.length ? columns[0].values.length : 0;
    var names = distinct(columns);
    var pages = count ? columns.map(page) : [];
    var offset = MAGIC.length;
    var chunks = pages.map(function (bytes, place) {
      offset += bytes.length;
      return chunk(columns[place], names[place], offset - bytes.length, bytes.length);
    });
    var group = struct({ 1: list(STRUCT, chunks), 2: i64(offset - MAGIC.length), 3: i64(count) });
    var schema = columns.map(function (column, place) {
      return element(column, names[place]);
    });
    schema.unshift(struct({ 4: string("table"), 5: i32(columns.length) }));
    var metadata = struct({
      1: i32(VERSION), 2: list(STRUCT, schema), 3: i64(count),
      4: list(STRUCT, count ? [group] : []),
    }).bytes;
    return joined([MAGIC].concat(pages, [metadata, uint32(metadata.length), MAGIC]));
  }

  window.KERNL_PARQUET = write;
})();

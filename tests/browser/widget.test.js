// What of the widget needs no page: `node --test tests/browser/widget.test.js`.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const widget = require("../../src/api/chat/assets/widget.js");
const { EventParser, blockEnd, inlineParts, cleanText, countChars, Client, Failure } = widget;

const STREAM = "\ufeff: hello\r\nid: 0\r\nevent: start\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid:3\nevent:item\ndata:é\n\n"
  + ": still there\n\nid: 4\revent: end\rdata\r\revent: none\n\ndata: without a name\n\ndata: cut off";
const EVENTS = [
  { id: "0", name: "start", data: "{\"a\":\n1}" },
  { id: "3", name: "item", data: "é" },
  { id: "4", name: "end", data: "" },
  { id: "4", name: "message", data: "without a name" },
];

function parse(parts) {
  const parser = new EventParser();
  return parts.flatMap((part) => parser.push(part));
}

test("events are the same wherever the stream is cut", () => {
  assert.deepEqual(parse([STREAM]), EVENTS);
  assert.deepEqual(parse([...STREAM]), EVENTS);
  for (let first = 0; first <= STREAM.length; first += 1) {
    for (let second = first; second <= STREAM.length; second += 7) {
      const parts = [STREAM.slice(0, first), STREAM.slice(first, second), "", STREAM.slice(second)];
      assert.deepEqual(parse(parts), EVENTS, `cut at ${first} and ${second}`);
    }
  }
});

test("blocks and parts are found, and nothing of a text is lost", () => {
  for (const [text, end] of [
    ["a\nb", 0],
    ["a\n\n", 0],
    ["a\n\nb", 3],
    ["a\n```js", 2],
    ["```js\nx\n\ny", 0],
    ["```js\nx\n\ny\n```\nz", 15],
  ]) {
    assert.equal(blockEnd(text), end, JSON.stringify(text));
  }
  for (const text of ["", "<img src=x onerror=alert(1)>", "a `b` **c** https://d.example/e?f=g, h"]) {
    const parts = inlineParts(text);
    const shown = parts.map(({ kind, text: part }) => ({ code: `\`${part}\``, strong: `**${part}**` })[kind] || part);
    assert.equal(shown.join(""), text);
  }
});

test("links say where they lead and lead to the web", () => {
  const links = (text) => inlineParts(text).filter(({ kind }) => kind === "link").map(({ url }) => url);
  assert.deepEqual(links("See (https://a.example/b_(c)), http://d.example."), ["https://a.example/b_(c", "http://d.example/"]);
  for (const text of [
    "javascript:alert(1)", "[a](javascript:alert(1))", "data:text/html,x", "https://bank.example@evil.example/",
    "https://", "//evil.example", "<a href='javascript:1'>",
  ]) {
    assert.deepEqual(links(text), [], text);
  }
  // A label of its own would hide where it leads.
  assert.deepEqual(links("[https://bank.example](https://evil.example)"), ["https://bank.example/", "https://evil.example/"]);
});

test("a message is counted and cleaned as the server does it", () => {
  assert.equal(countChars("  u\u0308\n"), 1);
  assert.equal(countChars("👍🏽"), 2);
  assert.equal(cleanText(" a\r\nb\rc\t\u0000\u001b\u0085d \n"), "a\nb\nc\td");
});

// A server that gives these answers, one after the other.
function scripted(answers) {
  const asked = [];
  const fetch = async (url, { method, headers, body }) => {
    asked.push({ what: `${method} ${url}`, last: headers["Last-Event-ID"], body: body && JSON.parse(body) });
    const next = answers.shift();
    if (next === undefined) throw new Error(`not expected: ${url}`);
    if (next === "broken") throw new TypeError("Failed to fetch");
    const { status = 200, json, events, fields = {} } = next;
    if (json) return new Response(JSON.stringify(json), { status, headers: fields });
    return new Response(events ?? null, { status, headers: fields });
  };
  const pauses = [];
  const pause = async (ms) => { pauses.push(ms); };
  const client = new Client("", { hostname: "shop.example.com" }, { fetch, pause });
  const heard = { text: "", starts: 0, waits: 0 };
  const on = {
    start: () => { heard.starts += 1; },
    text: (text) => { heard.text += text; },
    waiting: () => { heard.waits += 1; },
  };
  return { client, asked, pauses, heard, on, rest: answers };
}

const VALID = { json: { valid: true, session_id: "s1" } };
const NONE = { json: { valid: false, session_id: null } };
const MADE = { status: 201, json: { session_id: "s2" } };
const event = (id, name, data) => `id: ${id}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
const START = event(0, "start", { message_id: "m1" });
const END = event(9, "end", { message_id: "m1" });
const item = (id, content) => event(id, "item", { content });

test("a broken connection is taken up where it broke off", async () => {
  const { client, asked, heard, on } = scripted([
    NONE, MADE, { events: START + item(3, "One") + "id: 4\nevent: item\nda" }, "broken",
    { events: item(4, ",") + item(6, " t") }, { events: item(8, "wo") + END },
  ]);
  const exchange = { text: "q", clientId: "c1" };
  await client.answer(exchange, on);
  assert.equal(heard.text, "One, two");
  assert.deepEqual(asked.slice(3).map(({ what, last }) => [what, last]), [
    ["GET /chat/stream/m1", "3"], ["GET /chat/stream/m1", "3"], ["GET /chat/stream/m1", "6"],
  ]);
  assert.equal(heard.starts, 1);
  assert.ok(heard.waits > 0);
});

test("a message is sent again by its one name until its answer has begun", async () => {
  const { client, asked, heard, on } = scripted([
    VALID, "broken", { status: 503, fields: { "Retry-After": "7" } }, { events: "" }, { events: START + item(1, "x") + END },
  ]);
  await client.answer({ text: "q", clientId: "c1" }, on);
  const said = asked.filter(({ what }) => what === "POST /chat/message");
  assert.deepEqual(said.map(({ body }) => body.client_message_id), ["c1", "c1", "c1", "c1"]);
  assert.equal(heard.text, "x");
});

test("a server that asks for patience gets it", async () => {
  const { client, pauses, on } = scripted([VALID, { status: 503, fields: { "Retry-After": "7" } }, { events: START + END }]);
  await client.answer({ text: "q", clientId: "c1" }, on);
  assert.deepEqual(pauses, [7000]);
});

test("a session that is over is replaced once", async () => {
  const over = { status: 401, json: {} };
  const good = scripted([VALID, over, NONE, MADE, { events: START + END }]);
  await good.client.answer({ text: "q", clientId: "c1" }, good.on);
  assert.equal(good.client.session, "s2");
  const kept = scripted([VALID, over, NONE, MADE, over]);
  await assert.rejects(kept.client.answer({ text: "q", clientId: "c1" }, kept.on), { kind: "cookies" });
});

test("what cannot get better is told at once", async () => {
  for (const [answer, kind] of [
    [{ status: 429, fields: { "Retry-After": "12" } }, "limited"],
    [{ status: 403 }, "refused"],
    [{ status: 422 }, "invalid"],
    [{ events: START + event(1, "error", { status: 502, code: "upstream_failed" }) }, "answer"],
    [{ events: START + event(1, "error", { status: 401, code: "invalid_credential" }) }, "session"],
  ]) {
    const { client, on, rest } = scripted([VALID, answer]);
    await assert.rejects(client.answer({ text: "q", clientId: "c1" }, on), (error) => {
      assert.ok(error instanceof Failure);
      assert.equal(error.kind, kind);
      if (kind === "limited") assert.equal(error.retryAfter, 12);
      return true;
    });
    assert.equal(rest.length, 0);
  }
  const seen = scripted([{ status: 204 }]);
  await seen.client.answer({ id: "m1", lastEventId: "9" }, seen.on);
});

test("nobody tries for ever", async () => {
  const { client, pauses, on } = scripted([VALID, ...Array(20).fill("broken")]);
  await assert.rejects(client.answer({ text: "q", clientId: "c1" }, on), { kind: "offline" });
  assert.equal(pauses.length, 8);
  assert.ok(pauses.every((ms) => ms >= 250 && ms <= 30_000), String(pauses));
});

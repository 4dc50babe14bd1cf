// What of the widget needs no page: `node --test tests/browser/widget.test.js`.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const widget = require("../../src/api/chat/assets/widget.js");
const { EventParser, Blocks, inlineParts, cleanText, countChars, Client, Failure } = widget;

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

// What is shown of a text that comes in these pieces, block by block, and how many characters were
// handled for it.
function shown(pieces) {
  const blocks = [];
  let open = [];
  let handled = 0;
  const count = (parts) => { for (const { text } of parts) handled += text.length; };
  const add = (block, parts) => {
    for (const { kind, text, url } of parts) {
      const last = block.parts.at(-1);
      if (kind === "text" && last?.kind === "text") last.text += text;
      else block.parts.push({ kind, text, ...(url && { url }) });
    }
  };
  const reader = new Blocks({
    begin: (kind, goesOn) => { open = []; blocks.push({ kind, goesOn, parts: [] }); },
    settle: (parts) => { open = []; count(parts); add(blocks.at(-1), parts); },
    open: (parts, isNew) => { count(parts); open = parts.length > 0 ? [{ parts, isNew }] : []; },
  });
  for (const piece of pieces) reader.push(piece);
  for (const { parts, isNew } of open) {
    if (isNew) blocks.push({ kind: "p", goesOn: false, parts: [] });
    add(blocks.at(-1), parts);
  }
  return { blocks, handled };
}

function cut(text, size) {
  return Array.from({ length: Math.ceil(text.length / size) }, (_, n) => text.slice(n * size, (n + 1) * size));
}

const told = ({ blocks }) => blocks.map(({ kind, goesOn, parts }) => `${kind}${goesOn ? "+" : ""}:${parts.map((part) => part.text).join("")}`);

test("a text is cut into paragraphs and code", () => {
  for (const [text, expected] of [
    ["", []],
    ["a\nb\n", ["p:a\nb"]],
    ["a\n\nb\n\n\nc", ["p:a", "p:b", "p:c"]],
    ["a\n```js", ["p:a\n```js"]],
    ["a\n```js\n", ["p:a", "pre:"]],
    ["```\nx\n\ny\n```\nz", ["pre:x\n\ny", "p:z"]],
    ["```js\nx\n``", ["pre:x\n``"]],
    ["```js\nx\n```", ["pre:x"]],
    ["```js\nx\n```  \n\n```\ny", ["pre:x", "pre:y"]],
    ["```\nx\n```y\n```", ["pre:x\n```y"]],
    ["see ```a``` b\n```a``` b\nc", ["p:see ``a`` b\n``a`` b\nc"]],
    ["<img src=x onerror=alert(1)>", ["p:<img src=x onerror=alert(1)>"]],
  ]) {
    assert.deepEqual(told(shown([text])), expected, JSON.stringify(text));
  }
});

test("a text looks the same however it was cut, and nothing of it is lost", () => {
  const long = "word **strong** `code` https://a.example/b ".repeat(300);
  for (const text of [
    "One **two**\n`three` https://a.example/b.\n\n```js\nlet x;\n\n\n  x();\n```\nlast `\n`` ```\n```\nopen",
    `${long}\n${long}`, `\`\`\`\n${"x\n".repeat(9000)}`, "x".repeat(25_000), "😀".repeat(9001), `${"()".repeat(4999)} https://a.example/ b`,
    `https://a.example/${"x".repeat(5000)}/ **b**`,
  ]) {
    const once = shown([text]);
    for (const size of [1, 2, 3, 7, 1999, 2001]) {
      assert.deepEqual(shown(cut(text, size)), { ...once, handled: shown(cut(text, size)).handled }, `${text.slice(0, 20)} by ${size}`);
    }
    const [letters, all] = [(some) => some.replace(/[\s`*]|js/g, ""), once.blocks.flatMap(({ parts }) => parts)];
    assert.equal(letters(all.map((part) => part.text).join("")), letters(text));
    assert.ok(once.blocks.every(({ parts }) => parts.every((part) => part.text.isWellFormed?.() ?? true)));
    for (const { url } of all.filter(({ kind }) => kind === "link")) {
      assert.equal(url, "https://a.example/b".slice(0, url.length), "an address that was cut leads nowhere");
    }
  }
});

test("a piece of a long text costs no more than one of a short text", () => {
  for (const text of ["word ".repeat(100_000), "x".repeat(500_000), `\`\`\`\n${"y".repeat(500_000)}`, `\`\`\`\n${"y y\n".repeat(125_000)}`]) {
    const pieces = cut(text, 50);
    const { handled } = shown(pieces);
    assert.ok(handled < pieces.length * 2100 + text.length * 2, `${handled} characters for ${pieces.length} pieces`);
  }
});

test("an address with a long row of marks takes no time", () => {
  const begun = performance.now();
  const text = `https://a.example/${").".repeat(150_000)}x`;
  assert.equal(inlineParts(text)[0].text, text);
  assert.equal(inlineParts(text.slice(0, -1))[0].text, "https://a.example/");
  // It would take minutes.
  assert.ok(performance.now() - begun < 10_000);
});

test("nothing of a line is lost", () => {
  for (const text of ["", "<img src=x onerror=alert(1)>", "a `b` **c** https://d.example/e?f=g, h"]) {
    const parts = inlineParts(text).map(({ kind, text: part }) => ({ code: `\`${part}\``, strong: `**${part}**` })[kind] || part);
    assert.equal(parts.join(""), text);
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

test("a session that is another page's by now is replaced once", async () => {
  const { client, on } = scripted([VALID, { status: 403 }, NONE, MADE, { events: START + END }]);
  await client.answer({ text: "q", clientId: "c1" }, on);
  assert.equal(client.session, "s2");
  const kept = scripted([VALID, { status: 403 }, NONE, MADE, { status: 403 }]);
  await assert.rejects(kept.client.answer({ text: "q", clientId: "c1" }, kept.on), { kind: "refused" });
});

test("what cannot get better is told at once", async () => {
  for (const [answer, kind] of [
    [{ status: 429, fields: { "Retry-After": "12" } }, "limited"],
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

// Every item of what a page may do with a URL. A check throws, or it holds.
import { NAME, HOST, scratch, frame, sleep, same, json, isData, hits, hit, message, framed, landed, socket, digest, xhr, bytes } from "/static/checking.js";

const checks = {
  // ------------------------------------------------------------ what the page holds
  "html: attributes": () => {
    document.querySelector("[loading=lazy]").scrollIntoView();
    return hit("img.svg", "img-relative.svg", "srcset-1.svg", "lazy.svg", "picture.svg", "poster.svg", "video-source.wav", "video.wav", "track.vtt", "audio.wav",
      "iframe.html", "object.svg", "embed.svg", "input.svg", "svg-image.svg", "xlink.svg");
  },
  "html: icon, preload, manifest": () => hit("preload-set.svg"),
  "html: srcdoc": () => hit("srcdoc.svg"),
  "html: inline style": () => hit("inline-style.svg", "inline-entities.svg"),
  "html: style element": () => hit("style-element.svg", "style-import.css"),
  "html: Link field": () => hit("link-header.css"),
  "html: an image is shown": () => same(document.getElementById("img").naturalWidth, 8),
  "html: what is no URL stays": async () => {
    same(document.getElementById("outside-link").href, "https://example.org/x");
    const seen = await hits();
    same(["comment.svg", "text.svg", "in-template.svg", "in-script.svg", "in-textarea.svg"].filter(name => seen.includes(name)), []);
  },
  "html: odd spelling": async () => {
    same((await framed("odd", f => { f.src = "/script-elements"; })).odd, "odd spelling");
    await hit("upper.svg", "single.svg", "bare.svg");
  },
  "html: base": async () => {
    await framed("based", f => { f.src = "/based"; });
    await hit("below/based-relative.svg", "based-rooted.svg", "below/based-fetch.svg");
  },
  "html: meta refresh": () => framed("landed", f => { f.src = "/meta-refresh"; }).then(({ landed }) => same([landed.name, landed.path], [NAME, "/landed/meta-refresh"])),
  "field: Refresh": () => framed("landed", f => { f.src = "/header-refresh"; }).then(({ landed }) => same([landed.name, landed.path], [NAME, "/landed/header-refresh"])),
  "css: url()": () => hit("sheet.svg", "sheet-quoted.svg", "relative-sheet.svg", "font.svg", "custom-property.svg"),
  "css: image-set": () => hit("image-set-url.svg", "image-set.svg"),
  "css: @import": async () => {
    const color = name => { const p = document.createElement("p"); p.className = name; scratch.append(p); const { color } = getComputedStyle(p); p.remove(); return color; };
    same([color("imported"), color("imported-url")], ["rgb(1, 2, 3)", "rgb(4, 5, 6)"]);
    await hit("import-relative.css");
  },

  // ------------------------------------------------------------ scripts
  "script: classic": () => same([globalThis.classic, globalThis.unquoted], [1, true]),
  "script: modules, static and dynamic": async () => {
    for (let attempt = 0; attempt < 20 && !globalThis.inlineModule; attempt++) await sleep(100);
    const { name, relative, dynamic, computed } = globalThis.inlineModule ?? {};
    same([name, relative, dynamic?.name, computed?.name], [NAME, NAME, `${NAME} dynamic`, `${NAME} dynamic`]);
  },
  "script: import from a file": async () => {
    const path = ["", "static", "dynamic.js"].join("/");
    same((await import(path)).name, `${NAME} dynamic`);
    same((await import("/static/module.js")).deep, `${NAME} deep`);
  },
  "script: a page's own import map": async () =>
    same((await framed("imported", f => { f.src = "/import-map"; })).imported, [NAME, `${NAME} dynamic`, `${NAME} dynamic`]),
  "script: document.write": async () => {
    const element = document.createElement("iframe");
    element.src = "/written";
    scratch.append(element);
    await hit("document-write.svg", "document-write.js");
    element.remove();
  },

  // ------------------------------------------------------------ requests
  "fetch: string": async () => isData(await json(fetch("/data"))),
  "fetch: relative": async () => isData(await json(fetch("data"))),
  "fetch: URL": async () => isData(await json(fetch(new URL("/data", location.href)))),
  "fetch: origin and path": async () => isData(await json(fetch(location.origin + "/data"))),
  "fetch: Request": async () => isData(await json(fetch(new Request("/data")))),
  "fetch: Request of a Request": async () => {
    const request = new Request(new Request("/data", { method: "POST", body: "x" }), { headers: { "X-Check": "1" } });
    const seen = await json(fetch(request));
    same([seen.name, seen.path, seen.method, seen.length, seen.headers["x-check"]], [NAME, "/data", "POST", 1, "1"]);
  },
  "fetch: POST with a body": async () => {
    const body = bytes(3_000_000);
    const seen = await json(fetch("/data", { method: "POST", body, headers: { "X-Check": "kept" } }));
    same([seen.name, seen.method, seen.length, seen.sha256, seen.headers["x-check"]], [NAME, "POST", body.length, await digest(body), "kept"]);
  },
  "fetch: PUT, PATCH, DELETE, HEAD": async () => {
    for (const method of ["PUT", "PATCH", "DELETE"]) same((await json(fetch("/data", { method, body: "x" }))).method, method);
    same((await fetch("/data", { method: "HEAD" })).status, 200);
    same((await fetch("/empty")).status, 204);
  },
  "fetch: FormData": async () => {
    const form = new FormData();
    form.append("file", new Blob([bytes(500_000)]), "ä b.bin");
    form.append("text", "grüße");
    const text = await (await fetch("/form", { method: "POST", body: form })).text();
    const { parts } = JSON.parse(text.match(/landed: (.*)}, "\*"/)[1]);
    same([parts.file.length, parts.file.sha256], [500_000, await digest(bytes(500_000))]);
  },
  "fetch: query and percent forms": async () => {
    same((await json(fetch("/data?a=%2Fx&b=1+2&c=ü"))).query, { a: "/x", b: "1 2", c: "ü" });
  },
  "fetch: a page that is data": async () => same((await (await fetch("/opaque")).text()), '{"url": "/static/main.css", "html": "<a href=\\"/x\\">", "css": "url(/y)"}'.repeat(50)),
  "fetch: attachment and no-transform": async () => {
    same(await (await fetch("/attachment")).text(), '<a href="/x">');
    same(await (await fetch("/no-transform")).text(), '<a href="/x">');
  },
  "fetch: range": async () => {
    const answer = await fetch("/range", { headers: { Range: "bytes=100-299" } });
    const part = new Uint8Array(await answer.arrayBuffer());
    same([answer.status, answer.headers.get("content-range"), part.length, part[0], part[199]], [206, "bytes 100-299/10240", 200, 100, 299 & 255]);
  },
  "fetch: a stream, unbuffered": async () => {
    const reader = (await fetch("/stream")).body.getReader();
    const text = piece => new TextDecoder().decode(piece.value);
    same(text(await reader.read()), "first");
    await fetch("/release");
    same(text(await reader.read()), "second");
    same((await reader.read()).done, true);
  },
  "fetch: who asks": async () => {
    const { headers } = await json(fetch("/data"));
    const cookie = headers.cookie ?? "";
    if (cookie.includes("tollgate")) throw new Error("the application saw the gateway's cookie");
    if (headers.via && !headers["x-user-id"]) throw new Error("no identity");
  },
  "xhr: string and URL": async () => {
    isData(JSON.parse((await xhr("/data")).responseText));
    isData((await xhr(new URL("/data", location.href), { type: "json" })).response);
    same((await xhr("data", { method: "POST", body: bytes(1000), type: "json" })).response.length, 1000);
  },
  "beacon": async () => {
    same(navigator.sendBeacon("/probe/beacon", "x"), true);
    await hit("beacon");
  },

  // ------------------------------------------------------------ sockets and streams
  "socket: by host": async () => {
    const it = socket(`${location.protocol.replace("http", "ws")}//${HOST}/ws?x=1`);
    const seen = JSON.parse(await it.next());
    same([seen.name, seen.path, seen.query], [NAME, "/ws", { x: "1" }]);
    it.send("grüße");
    same(await it.next(), "grüße");
    for (const length of [0, 1, 125, 126, 65535, 65536, 200_000]) {
      it.send(bytes(length));
      same(await digest(await it.next()), await digest(bytes(length)), `${length} bytes`);
    }
    it.close(4000, "done");
    const { code, reason, wasClean } = await it.ended;
    same([code, reason, wasClean], [4000, "done", true]);
  },
  "socket: by path, URL and with a protocol": async () => {
    const one = socket("/ws");
    same(JSON.parse(await one.next()).name, NAME);
    one.close();
    const url = new URL("/ws", location.href);
    const two = socket(url, ["a.example", "b.example"]);
    same([JSON.parse(await two.next()).name, two.protocol], [NAME, "b.example"]);
    two.close();
    await Promise.all([one.ended, two.ended]);
  },
  "socket: is still a WebSocket": () => {
    same([WebSocket.OPEN, WebSocket.name, socket.prototype === undefined], [1, "WebSocket", false]);
    const it = new WebSocket("/ws");
    same(it instanceof WebSocket, true);
    it.close();
  },
  "events": async () => {
    const events = new EventSource("/events");
    const event = await new Promise((done, fail) => { events.addEventListener("hello", done); setTimeout(fail, 4000, new Error("no event")); });
    same([event.data.trim(), event.lastEventId], [NAME, "7"]);
    const again = await new Promise((done, fail) => { events.addEventListener("hello", done); setTimeout(fail, 6000, new Error("not again")); });
    same(again.data.trim(), `${NAME} 7`, "after reconnecting");
    events.close();
  },

  // ------------------------------------------------------------ workers
  "worker": async () => {
    const worker = new Worker("/static/worker.js");
    const told = await new Promise((done, fail) => { worker.onmessage = event => done(event.data); worker.onerror = event => fail(new Error(event.message)); });
    worker.terminate();
    same([told.error, told.fetched, told.socket, told.xhr, told.classic], [undefined, NAME, NAME, NAME, 1]);
  },
  "worker: module, by URL": async () => {
    const worker = new Worker(new URL("/static/module-worker.js", location.href), { type: "module" });
    const told = await new Promise((done, fail) => { worker.onmessage = event => done(event.data); worker.onerror = event => fail(new Error(event.message)); });
    worker.terminate();
    same(told, { name: NAME, fetched: NAME });
  },
  "worker: shared": async () => {
    const worker = new SharedWorker("/static/worker.js");
    const told = await new Promise((done, fail) => { worker.port.onmessage = event => done(event.data); worker.onerror = () => fail(new Error("shared worker")); });
    same([told.error, told.fetched, told.socket], [undefined, NAME, NAME]);
  },
  "worker: from a blob": async () => {
    const text = `importScripts("${location.origin}/static/classic.js"); fetch("${location.origin}/data").then(a => a.json()).then(d => postMessage([d.name, classic]))`;
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    const told = await new Promise((done, fail) => { worker.onmessage = event => done(event.data); worker.onerror = event => fail(new Error(event.message)); });
    worker.terminate();
    same(told, [NAME, 1]);
  },

  // ------------------------------------------------------------ what scripts set
  "set: attributes": async () => {
    const make = (tag, attributes) => {
      const element = document.createElement(tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      scratch.append(element);
    };
    make("img", { src: "/probe/set-src.svg" });
    make("img", { srcset: "/probe/set-srcset.svg 1x" });
    make("script", { src: "/probe/set-script.js" });
    make("link", { rel: "stylesheet", href: "/probe/set-link.css" });
    make("video", { poster: "/probe/set-poster.svg" });
    make("p", { style: "background: url(/probe/set-style.svg)" });
    await hit("set-src.svg", "set-srcset.svg", "set-script.js", "set-link.css", "set-poster.svg", "set-style.svg");
  },
  "set: properties": async () => {
    const make = (tag, properties) => scratch.append(Object.assign(document.createElement(tag), properties));
    make("img", { src: "/probe/idl-src.svg" });
    make("img", { srcset: "/probe/idl-srcset.svg" });
    make("script", { src: "/probe/idl-script.js" });
    make("link", { rel: "stylesheet", href: "/probe/idl-link.css" });
    make("iframe", { src: "/probe/idl-frame.html" });
    make("video", { poster: "/probe/idl-poster.svg" });
    make("object", { data: "/probe/idl-object.svg", type: "image/svg+xml" });
    make("embed", { src: "/probe/idl-embed.svg", type: "image/svg+xml" });
    new Image().src = "/probe/idl-image.svg";
    new Audio("/probe/idl-audio.wav").load();
    await hit("idl-src.svg", "idl-srcset.svg", "idl-script.js", "idl-link.css", "idl-frame.html", "idl-poster.svg", "idl-object.svg", "idl-embed.svg", "idl-image.svg", "idl-audio.wav");
  },
  "set: markup": async () => {
    const box = document.createElement("div");
    scratch.append(box);
    box.innerHTML = '<img src="/probe/inner.svg"><p style="background: url(/probe/inner-style.svg)">p</p><a href="/landed/inner">a</a>';
    box.insertAdjacentHTML("beforeend", '<img src="/probe/adjacent.svg">');
    const range = document.createRange().createContextualFragment('<img src="/probe/fragment.svg">');
    box.append(range);
    const parsed = new DOMParser().parseFromString('<img src="/probe/parsed.svg">', "text/html").body.firstChild;
    box.append(document.importNode(parsed));
    const { content } = document.querySelector("template");
    box.append(content.cloneNode(true));
    await hit("inner.svg", "inner-style.svg", "adjacent.svg", "fragment.svg", "parsed.svg", "in-template.svg");
  },
  "set: styles": async () => {
    const p = document.createElement("p");
    p.textContent = "p";
    p.id = "by-rule";
    scratch.append(p);
    p.style.backgroundImage = "url(/probe/style-property.svg)";
    p.style.setProperty("list-style-image", "url(/probe/style-set.svg)");
    p.style.display = "list-item";
    const style = document.createElement("style");
    style.textContent = "#by-rule { border-image: url(/probe/style-text.svg) 1; border-style: solid }";
    document.head.append(style);
    style.sheet.insertRule("#by-rule::before { content: url(/probe/style-rule.svg) }");
    await hit("style-property.svg", "style-set.svg", "style-text.svg", "style-rule.svg");
  },
  "set: a link that is followed": async () => {
    const link = Object.assign(document.createElement("a"), { href: "/landed/idl-link", target: "frame" });
    scratch.append(link);
    await landed(() => link.click(), "/landed/idl-link");
  },

  // ------------------------------------------------------------ places
  "go: links": async () => {
    await landed(() => document.getElementById("plain-link").click(), "/landed/link", { query: { x: "1", y: "2" } });
    await landed(() => document.getElementById("entity-link").click(), "/landed/entity");
    await landed(() => document.getElementById("area").click(), "/landed/area");
  },
  "go: a new window": () => landed(() => document.getElementById("blank-link").click(), "/landed/blank"),
  "go: window.open": async () => {
    let opened;
    await landed(() => { opened = window.open("/landed/opened"); }, "/landed/opened");
    opened.close();
    await landed(() => window.open("/landed/named", "frame"), "/landed/named");
  },
  "go: location in a frame": async () => {
    const inner = () => frame.contentWindow;
    await landed(() => inner().location.assign("/landed/assign"), "/landed/assign");
    await landed(() => inner().location.replace("/landed/replace"), "/landed/replace");
    await landed(() => { inner().location.href = "/landed/href"; }, "/landed/href");
    await landed(() => { inner().location = "/landed/location"; }, "/landed/location");
  },
  "go: history": async () => {
    const before = location.href;
    history.pushState({ n: 1 }, "", "/pushed/deep?x=1#y");
    const pushed = [history.state.n, location.pathname.endsWith("/pushed/deep"), location.search, location.hash];
    history.replaceState({ n: 2 }, "", new URL("/replaced", location.href));
    const replaced = [history.state.n, location.pathname.endsWith("/replaced")];
    isData(await json(fetch("/data")));
    const here = new URL(location.href);
    const reloaded = await (await fetch(here)).text();
    history.replaceState(null, "", before);
    same([pushed, replaced], [[1, true, "?x=1", "#y"], [2, true]]);
    if (!reloaded.includes("Nothing at /replaced")) throw new Error(`a reload would show ${reloaded.slice(0, 80)}`);
  },

  // ------------------------------------------------------------ forms
  "form: GET": () => landed(() => document.getElementById("get-form").submit(), "/form", { parts: { q: "a b&ü" } }),
  "form: POST": () => landed(() => document.getElementById("post-form").submit(), "/form", { parts: { q: "posted" }, method: "POST" }),
  "form: formaction": () => landed(() => document.getElementById("formaction").click(), "/form", { query: { by: "button" }, method: "POST" }),
  "form: upload": async () => {
    const form = document.getElementById("upload-form"), file = document.getElementById("file"), transfer = new DataTransfer();
    transfer.items.add(new File([bytes(2_000_000)], "two.bin"));
    file.files = transfer.files;
    const { parts } = await landed(() => form.requestSubmit(), "/form");
    same([parts.file.length, parts.file.sha256, parts.file.file, parts.note.length], [2_000_000, await digest(bytes(2_000_000)), "two.bin", 7]);
  },
  "form: action set by script": async () => {
    const form = Object.assign(document.createElement("form"), { method: "post", target: "frame" });
    form.append(Object.assign(document.createElement("input"), { name: "q", value: "set" }));
    scratch.append(form);
    form.action = "/form?by=property";
    await landed(() => form.submit(), "/form", { query: { by: "property" }, parts: { q: "set" } });
    form.setAttribute("action", "/form?by=attribute");
    await landed(() => form.requestSubmit(), "/form", { query: { by: "attribute" } });
  },

  // ------------------------------------------------------------ redirects and cookies
  "redirect: every status": async () => {
    for (const status of [301, 302, 303, 307, 308]) {
      isData(await json(fetch(`/redirect/${status}?to=/data`)));
      isData(await json(fetch(`/redirect/${status}?to=${encodeURIComponent("http://@@HOST@@/data")}`)));
      const posted = await json(fetch(`/redirect/${status}?to=/data`, { method: "POST", body: "abc" }));
      same([posted.method, posted.length], status >= 307 ? ["POST", 3] : ["GET", 0], status);
    }
  },
  "redirect: relative": async () => isData(await json(fetch("/redirect/302?to=../data"))),
  "redirect: of a page": () => framed("landed", f => { f.src = "/redirect/302?to=/landed/redirected"; }).then(({ landed }) => same([landed.name, landed.path], [NAME, "/landed/redirected"])),
  "cookies: path and domain": async () => {
    await fetch("/cookies/set");
    const seen = async path => ((await json(fetch(path))).headers.cookie ?? "").split("; ").map(pair => pair.split("=")[0]).sort();
    const has = async (path, names) => { const found = await seen(path); same(["deep", "domain", "plain", "rooted"].filter(name => found.includes(name)), names, path); };
    await has("/cookies/deep", ["deep", "domain", "plain", "rooted"]);
    await has("/cookies/else", ["domain", "plain", "rooted"]);
    await has("/data", ["domain", "rooted"]);
  },
  "cookies: by script": async () => {
    document.cookie = "scripted=1; path=/";
    document.cookie = "hidden=1; path=/cookies";
    const seen = async path => (await json(fetch(path))).headers.cookie ?? "";
    same([(await seen("/data")).includes("scripted=1"), (await seen("/data")).includes("hidden=1"), (await seen("/cookies/x")).includes("hidden=1")], [true, false, true]);
    same(document.cookie.includes("scripted=1"), true, "read back");
    if (document.cookie.includes("tollgate")) throw new Error("a script can read the gateway's cookie");
  },

  // ------------------------------------------------------------ codings, caches, policies
  "coding: pages": async () => {
    for (const coding of ["identity", "gzip", "deflate", "br", "zstd"]) {
      const told = await framed("coded", f => { f.src = `/encoded/${coding}/page`; });
      same(told, { coded: coding, name: NAME });
      await hit(`${coding}.svg`);
      const text = await (await fetch(`/encoded/${coding}/page`)).text();
      same(text.split("grüße").length, 2001, coding);
    }
  },
  "coding: style sheets": async () => {
    for (const coding of ["gzip", "br", "zstd"]) {
      scratch.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: `/encoded/${coding}/sheet.css` }));
      scratch.append(Object.assign(document.createElement("p"), { className: coding, textContent: "p" }));
      await hit(`${coding}-sheet.svg`);
    }
  },
  "cache: ETag": async () => {
    const once = await (await fetch("/etag", { cache: "reload" })).text();
    const again = await (await fetch("/etag", { cache: "no-cache" })).text();
    same([again, once.includes("tagged")], [once, true]);
    await hit('etag "v1"');
  },
  "policy: with a nonce": async () => same(await framed("policy", f => { f.src = "/csp"; }), { policy: NAME, violations: ["script-src-elem inline"], styles: 1 }),
  "policy: strict-dynamic": async () => same(await framed("policy", f => { f.src = "/csp-strict-dynamic"; }), { policy: NAME, violations: ["script-src-elem inline"], styles: 1 }),
  "policy: in the page": async () => same(await framed("policy", f => { f.src = "/meta-csp"; }), { policy: NAME, violations: [], styles: 0 }),

  // Last: it stays, and answers for the pages of its scope.
  "worker: service": async () => {
    const registration = await navigator.serviceWorker.register("/sw.js");
    try {
      await navigator.serviceWorker.ready;
      for (let attempt = 0; attempt < 30 && !navigator.serviceWorker.controller; attempt++) await sleep(100);
      const told = await json(fetch("/data?by-service-worker"));
      const root = new URL(document.querySelector("#get-form").action).pathname.replace(/form$/, "");
      same(told, { worker: NAME, scope: root });
      const found = await navigator.serviceWorker.getRegistration("/");
      same(found?.scope, registration.scope, "getRegistration");
    } finally { await registration.unregister(); }
  },
};

async function run() {
  if (document.readyState !== "complete") await new Promise(done => addEventListener("load", done));
  const body = document.querySelector("#results tbody");
  const only = new URLSearchParams(location.search).get("only");
  for (const [name, check] of Object.entries(checks)) {
    if (only && !name.includes(only)) continue;
    const late = new Promise((_, fail) => setTimeout(fail, 15_000, new Error("took too long")));
    let verdict = "ok", detail = "";
    try { await Promise.race([check(), late]); } catch (error) { verdict = "bad"; detail = String(error?.message ?? error); }
    const row = body.insertRow();
    row.className = verdict;
    for (const text of [name, verdict, detail]) row.insertCell().textContent = text;
  }
  document.documentElement.dataset.done = "yes";
}
run();

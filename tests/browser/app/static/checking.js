// What the checks are made of: `same` throws with both sides, `hit` waits until the
// application was asked for something, the rest waits for frames and sockets.
export const NAME = document.querySelector("meta[name=app]").content;
export const HOST = location.host;
export const scratch = document.getElementById("scratch");
export const frame = document.getElementById("frame");
export const sleep = time => new Promise(done => setTimeout(done, time));

export function same(found, expected, what = "") {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what} ${a}, expected ${b}`);
}
export const json = async answer => (await answer).json();
export const isData = data => same([data.name, data.path], [NAME, "/data"]);
export const hits = () => json(fetch("/hits", { cache: "no-store" }));
export async function hit(...names) {
  let missing;
  for (let attempt = 0; attempt < 25; attempt++) {
    const seen = new Set(await hits());
    missing = names.filter(name => !seen.has(name));
    if (!missing.length) return;
    await sleep(100);
  }
  throw new Error(`never asked for: ${missing.join(", ")}`);
}
/** The next message that has `key`. */
export function message(key, start) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => { removeEventListener("message", listen); fail(new Error(`no message with ${key}`)); }, 5000);
    const listen = event => {
      if (!event.data || !(key in event.data)) return;
      clearTimeout(timer);
      removeEventListener("message", listen);
      done(event.data);
    };
    addEventListener("message", listen);
    start();
  });
}
/** A frame shown until `key` comes from it. */
export async function framed(key, show) {
  const element = document.createElement("iframe");
  try { return await message(key, () => { show(element); scratch.append(element); }); } finally { element.remove(); }
}
export const landed = async (start, path, more = {}) => {
  const seen = (await message("landed", start)).landed;
  same([seen.name, seen.path], [NAME, path]);
  for (const [key, value] of Object.entries(more)) same(seen[key], value, key);
  return seen;
};
export function socket(url, protocols) {
  const it = new WebSocket(url, protocols);
  it.binaryType = "arraybuffer";
  const waiting = [], arrived = [];
  it.onmessage = event => (waiting.shift() ?? (data => arrived.push(data)))(event.data);
  it.next = () => arrived.length ? Promise.resolve(arrived.shift()) : new Promise(done => waiting.push(done));
  it.ended = new Promise(done => { it.onclose = done; });
  return it;
}
export async function digest(data) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return [...hash].map(byte => byte.toString(16).padStart(2, "0")).join("");
}
export function xhr(url, { method = "GET", body, type } = {}) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    if (type) request.responseType = type;
    request.onload = () => done(request);
    request.onerror = () => fail(new Error("xhr"));
    request.send(body);
  });
}
export const bytes = length => Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) & 255);

// Tollgate's chat, for any page:
//
//   <script src="https://gate.example.com/chat/widget.js" data-title="Ask us" defer></script>
//
// Attributes of the element: data-title, data-welcome, data-color, data-theme (auto, light, dark),
// data-position (right, left), data-open (true), data-lang (en, de), data-mount (a selector: the
// chat stands in that element instead of in a corner), data-server, and data-text-NAME for any of
// the texts below. Custom properties and parts: docs/chat.md.
//
// What is said is put into the page as text, never as markup. No request goes to any other host,
// and none at all before somebody opens the chat.
(() => {
  "use strict";

  // The server puts its own in here.
  const SETTINGS = { color: "#1f5fa8", messageMaxChars: 4000 };

  const TEXTS = {
    en: {
      title: "Chat",
      welcome: "Hello! What can we do for you?",
      open: "Open the chat",
      unread: "Open the chat: there is a new answer",
      close: "Close the chat",
      conversation: "Conversation",
      input: "Your message",
      placeholder: "Write a message…",
      send: "Send",
      you: "You",
      assistant: "Answer",
      answering: "An answer is on its way",
      earlier: "Show earlier messages",
      forget: "Delete this conversation",
      forgetAsk: "Delete this conversation for good?",
      forgetYes: "Delete",
      forgetNo: "Keep",
      forgotten: "The conversation is deleted.",
      retry: "Try again",
      left: "{n} of {most} characters",
      long: "Too long: {n} of {most} characters",
      waiting: "The connection is lost. Trying again…",
      offline: "The chat cannot be reached.",
      limited: "Too many messages. Try again in {n} seconds.",
      cookies: "The chat needs a cookie, which this browser does not keep.",
      refused: "The chat is not available on this page.",
      invalid: "This message cannot be sent.",
      session: "The chat was ended.",
      answer: "The answer broke off.",
      server: "Something went wrong.",
    },
    de: {
      title: "Chat",
      welcome: "Guten Tag! Was können wir für Sie tun?",
      open: "Chat öffnen",
      unread: "Chat öffnen: eine neue Antwort ist da",
      close: "Chat schließen",
      conversation: "Unterhaltung",
      input: "Ihre Nachricht",
      placeholder: "Nachricht schreiben…",
      send: "Senden",
      you: "Sie",
      assistant: "Antwort",
      answering: "Eine Antwort ist unterwegs",
      earlier: "Frühere Nachrichten zeigen",
      forget: "Diese Unterhaltung löschen",
      forgetAsk: "Diese Unterhaltung endgültig löschen?",
      forgetYes: "Löschen",
      forgetNo: "Behalten",
      forgotten: "Die Unterhaltung ist gelöscht.",
      retry: "Noch einmal versuchen",
      left: "{n} von {most} Zeichen",
      long: "Zu lang: {n} von {most} Zeichen",
      waiting: "Die Verbindung ist unterbrochen. Neuer Versuch…",
      offline: "Der Chat ist nicht erreichbar.",
      limited: "Zu viele Nachrichten. In {n} Sekunden geht es weiter.",
      cookies: "Der Chat braucht ein Cookie, das dieser Browser nicht behält.",
      refused: "Auf dieser Seite ist der Chat nicht verfügbar.",
      invalid: "Diese Nachricht kann nicht gesendet werden.",
      session: "Der Chat wurde beendet.",
      answer: "Die Antwort ist abgebrochen.",
      server: "Etwas ist schiefgegangen.",
    },
  };

  // ------------------------------------------------------------------ server-sent events

  // Reads an event stream that may be cut anywhere (HTML, 9.2.6). Lines end with LF, CR or CRLF.
  class EventParser {
    #line = "";
    #afterReturn = false;
    #begun = false;
    #id = "";
    #name = "";
    #data = [];

    // The events that are whole with this text.
    push(text) {
      const events = [];
      if (!this.#begun && text !== "") {
        this.#begun = true;
        if (text.startsWith("\ufeff")) text = text.slice(1);
      }
      for (const part of text.split(/(\r\n|\r|\n)/)) {
        if (part === "") continue;
        const isBreak = part === "\r\n" || part === "\r" || part === "\n";
        if (!isBreak) {
          this.#line += part;
        } else if (!(part === "\n" && this.#afterReturn)) {
          const event = this.#take(this.#line);
          if (event) events.push(event);
          this.#line = "";
        }
        this.#afterReturn = part === "\r";
      }
      return events;
    }

    #take(line) {
      if (line === "") {
        const event = { id: this.#id, name: this.#name || "message", data: this.#data.join("\n") };
        const isOne = this.#data.length > 0;
        this.#name = "";
        this.#data = [];
        return isOne ? event : null;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") this.#data.push(value);
      if (field === "event") this.#name = value;
      if (field === "id" && !value.includes("\0")) this.#id = value;
      return null;
    }
  }

  // ------------------------------------------------------------------ texts as they are shown

  // Cuts a text that grows into blocks of paragraphs and code. What nothing to come can change is
  // handed on once; only the end of the last line is made anew with every piece. So a piece costs
  // as much as it is long, however long the text is. `show` has
  //   begin(kind, goesOn)  a block begins: "p" or "pre"; one that goes on was only too large
  //   settle(parts)        these belong to it for good
  //   open(parts, isNew)   so do these for now; with `isNew` they would begin a block
  class Blocks {
    static LINE = 2000;
    static BLOCK = 8000;

    #show;
    #kind = null;
    #size = 0;
    #breaks = ""; // the line feeds behind what is settled
    #line = ""; // what is not settled
    #isStart = true; // of its line nothing is
    #isInWord = false; // a word that was too long goes on: what it is was not looked at

    constructor(show) {
      this.#show = show;
    }

    push(text) {
      for (const [at, part] of text.split("\n").entries()) {
        if (at > 0) this.#endLine();
        this.#line += part;
        while (this.#line.length > Blocks.LINE) this.#settleSome();
      }
      if (this.#kind === "pre") {
        const isShown = this.#line !== "" && !(this.#isStart && isFenceEnd(this.#line));
        this.#show.open(isShown ? plainParts(this.#breaks + this.#line) : [], false);
      } else {
        const parts = this.#line === "" ? [] : this.#parts(this.#line);
        const isNew = this.#isNew();
        this.#show.open(isNew || parts.length === 0 ? parts : [...plainParts(this.#breaks), ...parts], isNew);
      }
    }

    #isNew() {
      return this.#kind === null || this.#breaks.length > 1;
    }

    #begin(kind, goesOn) {
      this.#show.begin(kind, goesOn);
      this.#kind = kind;
      this.#size = 0;
      this.#breaks = "";
    }

    #endLine() {
      const line = this.#line;
      const isWhole = this.#isStart;
      this.#line = "";
      if (isWhole && this.#kind === "pre" && isFenceEnd(line)) {
        this.#kind = null;
      } else if (isWhole && this.#kind !== "pre" && /^```[^`]*$/.test(line)) {
        this.#begin("pre", false);
      } else if (isWhole && line === "") {
        if (this.#kind !== null) this.#breaks += "\n";
      } else {
        this.#settle(line);
        this.#breaks = "\n";
      }
      this.#isStart = true;
      this.#isInWord = false;
    }

    // A line that is too long is cut, behind a word where that can be.
    #settleSome() {
      let end = this.#line.lastIndexOf(" ", Blocks.LINE - 1) + 1;
      const isCut = end === 0;
      if (isCut) {
        const last = this.#line.charCodeAt(Blocks.LINE - 1);
        end = last >= 0xd800 && last < 0xdc00 ? Blocks.LINE - 1 : Blocks.LINE;
      }
      const some = this.#line.slice(0, end);
      this.#line = this.#line.slice(end);
      this.#isInWord = this.#isInWord || isCut;
      this.#settle(some);
      this.#isStart = false;
      this.#isInWord = isCut;
    }

    #settle(text) {
      if (this.#kind === "pre") {
        if (this.#size > Blocks.BLOCK && this.#breaks !== "") {
          const more = this.#breaks.slice(1);
          this.#begin("pre", true);
          this.#breaks = more;
        }
        this.#show.settle(plainParts(this.#breaks + text));
      } else {
        if (this.#isNew()) this.#begin("p", false);
        else if (this.#size > Blocks.BLOCK) this.#begin("p", true);
        this.#show.settle([...plainParts(this.#breaks), ...this.#parts(text)]);
      }
      this.#size += text.length;
      this.#breaks = "";
    }

    // What begins within a word shows no mark or link until that is over.
    #parts(text) {
      if (!this.#isInWord) return inlineParts(text);
      const end = text.search(/\s/);
      return end < 0 ? plainParts(text) : [...plainParts(text.slice(0, end)), ...inlineParts(text.slice(end))];
    }
  }

  function isFenceEnd(line) {
    return /^```[ \t]*$/.test(line);
  }

  function plainParts(text) {
    return text === "" ? [] : [{ kind: "text", text }];
  }

  // A text as plain parts, `code`, **strong** parts and links.
  function inlineParts(text) {
    const TOKENS = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|https?:\/\/[^\s<>"'`[\]\u202a-\u202e\u2066-\u2069]+/gi;
    const parts = [];
    let at = 0;
    const plain = (until) => {
      if (until > at) parts.push({ kind: "text", text: text.slice(at, until) });
      at = until;
    };
    for (const found of text.matchAll(TOKENS)) {
      const [all, code, strong] = found;
      if (code !== undefined || strong !== undefined) {
        plain(found.index);
        parts.push(code === undefined ? { kind: "strong", text: strong } : { kind: "code", text: code });
        at = found.index + all.length;
        continue;
      }
      const link = withoutEnd(all);
      const url = safeUrl(link);
      if (!url) continue;
      plain(found.index);
      parts.push({ kind: "link", text: link, url });
      at = found.index + link.length;
    }
    plain(text.length);
    return parts;
  }

  // An address without what belongs to its sentence. An expression would look at each character of
  // a long row as its beginning.
  function withoutEnd(address) {
    let end = address.length;
    while (".,;:!?*_)]}".includes(address.charAt(end - 1)) && end > 0) end -= 1;
    return address.slice(0, end);
  }

  // The address of a link that says where it leads; null for all others.
  function safeUrl(text) {
    try {
      const url = new URL(text);
      const isWeb = url.protocol === "https:" || url.protocol === "http:";
      return isWeb && !url.username && !url.password ? url.href : null;
    } catch {
      return null;
    }
  }

  // As the server counts: composed, without white space around it.
  function countChars(text) {
    return [...text.trim().normalize("NFC")].length;
  }

  // What the server takes: no control characters but line feeds and tabs.
  function cleanText(text) {
    return text.replace(/\r\n?/g, "\n").replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, "").trim();
  }

  // ------------------------------------------------------------------ the server

  // Why something did not work; `kind` is the name of its text.
  class Failure extends Error {
    constructor(kind, { retryAfter = 0, isFinal = false } = {}) {
      super(kind);
      Object.assign(this, { kind, retryAfter, isFinal });
    }

    static of(response) {
      const retryAfter = Math.max(0, Number.parseInt(response.headers.get("Retry-After"), 10) || 0);
      const { status } = response;
      const kinds = { 401: "session", 403: "refused", 404: "refused", 429: "limited" };
      const kind = kinds[status] || (status < 500 ? "invalid" : "server");
      return new Failure(kind, { retryAfter, isFinal: status < 500 });
    }
  }

  // Whoever leaves a connection alone for so long is not there any more; the server says something
  // every 15 seconds.
  const SILENCE_MS = 40_000;
  const MOST_ATTEMPTS = 8;
  const LONGEST_PAUSE_MS = 30_000;

  // Speaks with the server; knows nothing of the page but its address.
  class Client {
    session = null;

    constructor(base, page, { fetch, pause } = {}) {
      this.base = base;
      this.page = page;
      this.fetch = fetch || ((...request) => globalThis.fetch(...request));
      this.pause = pause || sleep;
    }

    async request(method, path, { body, headers = {}, signal } = {}) {
      let response;
      try {
        response = await this.fetch(this.base + path, {
          method,
          headers: body ? { ...headers, "Content-Type": "application/json" } : headers,
          body: body && JSON.stringify(body),
          credentials: "include",
          cache: "no-store",
          referrerPolicy: "no-referrer",
          signal,
        });
      } catch (error) {
        // Offline, or an origin that is not allowed: a script is not told which.
        throw signal?.aborted ? error : new Failure("offline");
      }
      if (!response.ok) throw Failure.of(response);
      return response;
    }

    // Asks which session the cookie opens; null for none.
    async validate() {
      const state = await (await this.request("GET", "/session/validate")).json();
      this.session = state.valid ? state.session_id : null;
      return this.session;
    }

    // One tab at a time: of two new sessions the browser would keep one cookie.
    async begin() {
      const begin = async () => {
        if (await this.validate()) return;
        const { hostname, url } = this.page;
        const body = { origin_domain: hostname, ...(url && { page_url: url }) };
        const made = await (await this.request("POST", "/session/create", { body })).json();
        this.session = made.session_id;
      };
      const { locks } = globalThis.navigator || {};
      await (locks ? locks.request(`tollgate-chat ${this.base}`, begin) : begin());
    }

    // A page of the conversation, newest first.
    async history(cursor) {
      const query = new URLSearchParams({ limit: "50", ...(cursor && { cursor }) });
      return (await this.request("GET", `/chat/history/${this.session}?${query}`)).json();
    }

    async forget() {
      await this.request("DELETE", `/chat/history/${this.session}`);
      this.session = null;
    }

    // Sees to one answer until it is whole. `exchange` has `text` and `clientId` of a message that
    // is to be sent, or the `id` of an answer that is there; what is learnt is kept in it, so that
    // it can be called again after a failure. The same message is never said twice.
    async answer(exchange, on, signal) {
      let attempts = 0;
      let renewed = false;
      for (;;) {
        try {
          const response = exchange.id
            ? await this.#resume(exchange, signal)
            : await this.#post(exchange, signal);
          const heard = () => { attempts = 0; };
          if (response.status === 204 || await this.#read(response, exchange, on, heard)) return;
          throw new Failure("offline");
        } catch (error) {
          if (!(error instanceof Failure)) throw error;
          // Refused on a page that is told so: the cookie is another page's by now.
          if (["session", "refused"].includes(error.kind) && !exchange.id) {
            this.session = null;
            if (renewed) throw error.kind === "session" ? new Failure("cookies", { isFinal: true }) : error;
            renewed = true;
            continue;
          }
          attempts += 1;
          if (error.isFinal || attempts > MOST_ATTEMPTS) throw error;
          on.waiting();
          const backoff = Math.min(LONGEST_PAUSE_MS, 250 * 2 ** attempts) * (0.5 + Math.random() / 2);
          await this.pause(Math.max(backoff, error.retryAfter * 1000), signal);
        }
      }
    }

    async #post(exchange, signal) {
      if (!this.session) await this.begin();
      const body = { message: exchange.text, client_message_id: exchange.clientId };
      if (this.page.url) body.page_url = this.page.url;
      const headers = { Accept: "text/event-stream" };
      return this.request("POST", "/chat/message", { body, headers, signal });
    }

    async #resume({ id, lastEventId }, signal) {
      const headers = { Accept: "text/event-stream" };
      if (lastEventId) headers["Last-Event-ID"] = lastEventId;
      return this.request("GET", `/chat/stream/${id}`, { headers, signal });
    }

    // Whether the answer came to its end; otherwise the connection did.
    async #read(response, exchange, on, heard) {
      const parser = new EventParser();
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      try {
        for (;;) {
          const { done, value } = await within(SILENCE_MS, reader.read());
          if (done) return false;
          for (const event of parser.push(decoder.decode(value, { stream: true }))) {
            heard();
            const data = JSON.parse(event.data);
            if (event.name === "start") {
              exchange.id = data.message_id;
              on.start();
            }
            if (event.name === "item") on.text(data.content);
            exchange.lastEventId = event.id;
            if (event.name === "end") return true;
            if (event.name === "error") {
              const kind = data.status === 401 ? "session" : "answer";
              if (kind === "session") this.session = null;
              throw new Failure(kind, { isFinal: true });
            }
          }
        }
      } catch (error) {
        if (error instanceof Failure || error?.name === "AbortError") throw error;
        return false;
      } finally {
        reader.cancel().catch(() => {});
      }
    }
  }

  // What is promised, or a failure when it takes too long.
  function within(ms, promise) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("silence")), ms);
      promise.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  // Until the time is over, or the network is back.
  function sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      const wake = () => {
        clearTimeout(timer);
        globalThis.removeEventListener("online", wake);
        signal?.removeEventListener("abort", wake);
        if (signal?.aborted) reject(signal.reason);
        else resolve();
      };
      const timer = setTimeout(wake, ms);
      globalThis.addEventListener("online", wake);
      signal?.addEventListener("abort", wake);
    });
  }

  // `crypto.randomUUID` is missing on pages that come by http.
  function randomId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // ------------------------------------------------------------------ how it looks

  const DARK = `
    --_surface: #1d2126; --_text: #f2f4f7; --_muted: #aeb6c0; --_line: #7b8591; --_bubble: #2e343c;
    --_bad: #ffb3ba; --_shadow: 0 .75rem 2.5rem #000c;`;

  const STYLE = `
    :host {
      all: initial; display: block; font: 1rem/1.5 system-ui, sans-serif; color-scheme: light;
      --_surface: #fff; --_text: #1b1f24; --_muted: #59626d; --_line: #7d8793; --_bubble: #eef1f4;
      --_bad: #a4001d; --_shadow: 0 .75rem 2.5rem #0004;
    }
    @media (prefers-color-scheme: dark) { :host(:not([theme=light])) { color-scheme: dark; ${DARK} } }
    :host([theme=dark]) { color-scheme: dark; ${DARK} }
    :host {
      --color: var(--tollgate-chat-color, var(--_color));
      --on-color: var(--tollgate-chat-on-color, var(--_on-color));
      --surface: var(--tollgate-chat-surface, var(--_surface));
      --text: var(--tollgate-chat-text, var(--_text));
      --muted: var(--tollgate-chat-muted, var(--_muted));
      --line: var(--tollgate-chat-line, var(--_line));
      --bubble: var(--tollgate-chat-bubble, var(--_bubble));
      --bad: var(--tollgate-chat-bad, var(--_bad));
      --radius: var(--tollgate-chat-radius, 1rem);
      --offset: var(--tollgate-chat-offset, 1.25rem);
    }
    * { box-sizing: border-box; }
    [hidden] { display: none !important; }
    .unseen {
      position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden;
      clip-path: inset(50%); white-space: nowrap;
    }
    button, textarea { font: inherit; }
    button {
      min-width: 2.75rem; min-height: 2.75rem; padding: 0; border: 1px solid transparent;
      border-radius: 999px; background: none; color: inherit; cursor: pointer;
    }
    button.text { padding: 0 1rem; border-color: var(--line); color: var(--text); }
    button:focus-visible, a:focus-visible, .log:focus-visible {
      outline: 3px solid currentColor; outline-offset: 2px;
    }
    .log:focus-visible { outline-offset: -4px; }
    svg { display: block; width: 1.5rem; height: 1.5rem; margin: auto; fill: none; stroke: currentColor;
      stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }

    .launcher {
      position: fixed; inset-block-end: var(--offset); inset-inline-end: var(--offset);
      z-index: var(--tollgate-chat-z, 2147483000); width: 3.75rem; height: 3.75rem;
      background: var(--color); color: var(--on-color); box-shadow: 0 0 0 2px var(--surface), var(--_shadow);
    }
    .launcher svg { width: 1.75rem; height: 1.75rem; }
    .launcher:focus-visible { outline-color: var(--text); outline-offset: 4px; }
    .launcher .dot {
      position: absolute; inset-block-start: 0; inset-inline-end: 0; width: 1rem; height: 1rem;
      border: 2px solid var(--surface); border-radius: 50%; background: #c62828;
    }
    .panel {
      position: fixed; inset-block-end: calc(var(--offset) + 4.75rem); inset-inline-end: var(--offset);
      z-index: var(--tollgate-chat-z, 2147483000); display: flex; flex-direction: column;
      width: min(var(--tollgate-chat-width, 24rem), calc(100vw - 2 * var(--offset)));
      height: min(var(--tollgate-chat-height, 36rem), calc(100dvh - 2 * var(--offset) - 4.75rem));
      overflow: hidden; border: 1px solid var(--line); border-radius: var(--radius);
      background: var(--surface); color: var(--text); box-shadow: var(--_shadow);
      font-family: var(--tollgate-chat-font, system-ui, sans-serif);
    }
    :host([position=left]) :is(.launcher, .panel) { inset-inline: var(--offset) auto; }
    :host([inline]) { height: 100%; min-height: 20rem; }
    :host([inline]) .panel { position: static; width: 100%; height: 100%; box-shadow: none; }
    @media (prefers-reduced-motion: no-preference) {
      :host(:not([inline])) .panel { animation: rise .18s ease-out; }
      .dots i { animation: blink 1.2s infinite both; }
      .dots i:nth-child(2) { animation-delay: .2s; }
      .dots i:nth-child(3) { animation-delay: .4s; }
    }
    @keyframes rise { from { opacity: 0; transform: translateY(.75rem); } }
    @keyframes blink { 0%, 80%, 100% { opacity: .25; } 40% { opacity: 1; } }

    header {
      display: flex; align-items: center; gap: .25rem; padding: .5rem .5rem .5rem 1.25rem;
      background: var(--color); color: var(--on-color);
    }
    h2 { flex: 1; min-width: 0; margin: 0; font-size: 1.1rem; font-weight: 650; overflow-wrap: anywhere; }
    header button:focus-visible { outline-offset: -3px; }
    .log { flex: 1; min-height: 0; padding: 1rem; overflow-y: auto; overscroll-behavior: contain; }
    .log > * + * { margin-block-start: .75rem; }
    .log p, .log pre { margin: 0; }
    .welcome { color: var(--muted); }
    .earlier { display: block; margin-inline: auto; }
    .message { display: flex; flex-direction: column; align-items: flex-start; gap: .25rem; }
    .message + .message { margin-block-start: .75rem; }
    .message.user { align-items: flex-end; }
    .bubble {
      max-width: 88%; padding: .55rem .85rem; border: 1px solid transparent;
      border-radius: var(--radius) var(--radius) var(--radius) .25rem; background: var(--bubble);
      overflow-wrap: anywhere; white-space: pre-wrap;
    }
    .user .bubble {
      border-radius: var(--radius) var(--radius) .25rem; background: var(--color); color: var(--on-color);
    }
    .bubble > * + * { margin-block-start: .6rem !important; }
    .bubble > .more { margin-block-start: 0 !important; }
    .bubble a { color: inherit; text-decoration: underline; text-underline-offset: .15em; }
    .bubble code { font: .875em/1.5 ui-monospace, monospace; }
    .bubble pre code { display: block; }
    .bubble pre {
      padding: .6rem .75rem; border: 1px solid var(--line); border-radius: .5rem; white-space: pre-wrap;
      background: var(--surface);
    }
    .dots { display: inline-flex; gap: .3rem; padding: .45rem 0; }
    .dots i { width: .5rem; height: .5rem; border-radius: 50%; background: var(--muted); }
    .note { color: var(--bad); font-size: .9rem; font-weight: 600; }
    .note.calm { color: var(--muted); }
    .ask, .notice {
      display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; padding: .75rem 1rem;
      border-block-start: 1px solid var(--line);
    }
    .ask p, .notice p { flex: 1 1 100%; margin: 0; }
    .notice p { color: var(--bad); font-weight: 600; }

    form { padding: .75rem; border-block-start: 1px solid var(--line); }
    .row { display: flex; align-items: flex-end; gap: .5rem; }
    textarea {
      flex: 1; min-width: 0; min-height: 2.75rem; max-height: 9rem; padding: .55rem .85rem; resize: none;
      border: 1px solid var(--line); border-radius: 1.375rem; background: var(--surface);
      color: var(--text); line-height: 1.5;
    }
    textarea::placeholder { color: var(--muted); opacity: 1; }
    textarea:focus-visible { outline: 3px solid var(--text); outline-offset: 1px; }
    textarea[aria-invalid=true] { border: 2px solid var(--bad); }
    .send { background: var(--color); color: var(--on-color); }
    .send:focus-visible { outline-color: var(--text); }
    .send[aria-disabled=true] { background: var(--bubble); color: var(--muted); cursor: default; }
    .hint { margin: .35rem .85rem 0; color: var(--muted); font-size: .875rem; }
    .hint.bad { color: var(--bad); font-weight: 600; }

    @media (max-width: 30rem) {
      :host(:not([inline])) .panel {
        inset: 0; width: 100vw; height: 100dvh; border: 0; border-radius: 0;
      }
      :host(:not([inline])) .launcher[aria-expanded=true] { display: none; }
    }`;

  const ICONS = {
    chat: ["M21 12a8 8 0 0 1-8 8H4l2-3.5A8 8 0 1 1 21 12Z", "M9 12h.01", "M13 12h.01", "M17 12h.01"],
    close: ["M6 6l12 12", "M18 6L6 18"],
    send: ["M12 19V5", "M6 11l6-6 6 6"],
    forget: ["M4 7h16", "M10 11v6", "M14 11v6", "M6 7l1 13h10l1-13", "M9 7V4h6v3"],
  };

  // An element with attributes and children; what is text becomes text.
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(key, "");
      else if (value !== false && value !== undefined) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  function icon(name) {
    const SVG = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    for (const line of ICONS[name]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", line);
      svg.append(path);
    }
    return svg;
  }

  // Black or white, whichever reads better (WCAG 2.2, contrast ratio).
  function readableOn(rgb) {
    const linear = rgb.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    return (luminance + 0.05) ** 2 > 0.05 * 1.05 ? "#000" : "#fff";
  }

  // A text that grows.
  class TextView {
    #root;
    #block = null;
    #open = []; // what is there for now
    #blocks = null;
    text = "";

    constructor(root) {
      this.#root = root;
      this.clear();
    }

    append(text) {
      this.text += text;
      this.#blocks.push(text);
    }

    clear() {
      this.#root.replaceChildren();
      this.#block = null;
      this.#open = [];
      this.#blocks = new Blocks(this);
      this.text = "";
    }

    begin(kind, goesOn) {
      this.#drop();
      if (kind === "pre") {
        const code = make("code");
        if (goesOn) this.#block.after(code);
        else this.#root.append(make("pre", { dir: "ltr" }, code));
        this.#block = code;
      } else {
        this.#block = make("p", { dir: "auto", class: goesOn ? "more" : undefined });
        this.#root.append(this.#block);
      }
    }

    settle(parts) {
      this.#drop();
      this.#block.append(...parts.map(inlineElement));
    }

    open(parts, isNew) {
      this.#drop();
      if (parts.length === 0) return;
      const nodes = parts.map(inlineElement);
      this.#open = isNew ? [make("p", { dir: "auto" }, ...nodes)] : nodes;
      (isNew ? this.#root : this.#block).append(...this.#open);
    }

    #drop() {
      for (const node of this.#open) node.remove();
      this.#open = [];
    }
  }

  function inlineElement({ kind, text, url }) {
    if (kind === "link") {
      const rel = "noopener noreferrer nofollow";
      return make("a", { href: url, target: "_blank", rel, dir: "ltr" }, text);
    }
    return kind === "text" ? document.createTextNode(text) : make(kind, {}, text);
  }

  // ------------------------------------------------------------------ the widget

  class Widget {
    #client;
    #texts;
    #inline;
    #root;
    #view = {};
    #isOpen = false;
    #isLoaded = false;
    #current = null; // the exchange under way
    #isStale = false; // another tab said something meanwhile
    #cursor = null;
    #shown = new Map(); // what is shown, by the id or the client's id of its message
    #gone = new AbortController();
    #channel = null;
    #narrow = matchMedia("(max-width: 30rem)");

    constructor(options) {
      this.#client = new Client(options.base, options.page);
      this.#texts = options.texts;
      this.#inline = Boolean(options.mount);
      this.#build(options);
      this.#listen();
      if (globalThis.BroadcastChannel) {
        this.#channel = new BroadcastChannel(`tollgate-chat ${options.base}`);
        this.#channel.onmessage = () => this.#changedElsewhere();
      }
      if (this.#inline || options.open || remembered() === "open") this.#show();
    }

    // ---- building

    #build({ mount, theme, position, color, lang }) {
      const texts = this.#texts;
      const view = this.#view;
      this.host = make("tollgate-chat", { lang, theme, position, inline: this.#inline });
      this.#root = this.host.attachShadow({ mode: "open" });
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      this.#root.adoptedStyleSheets = [sheet];

      view.launcher = make("button", {
        class: "launcher", part: "launcher", type: "button", "aria-haspopup": "dialog",
        "aria-expanded": "false", "aria-controls": "panel", "aria-label": texts.open,
        hidden: this.#inline,
      }, icon("chat"));
      view.dot = make("span", { class: "dot", hidden: true });
      view.launcher.append(view.dot);

      view.forget = make("button", {
        type: "button", part: "forget", "aria-label": texts.forget, title: texts.forget, hidden: true,
      }, icon("forget"));
      view.close = make("button", {
        type: "button", part: "close", "aria-label": texts.close, title: texts.close,
        hidden: this.#inline,
      }, icon("close"));
      view.earlier = make("button", { class: "text earlier", type: "button", hidden: true }, texts.earlier);
      view.welcome = make("p", { class: "welcome", part: "welcome" }, texts.welcome);
      view.messages = make("div");
      // Quiet: what grows letter by letter is told when it is whole.
      view.log = make("div", {
        class: "log", part: "log", role: "log", "aria-live": "off", tabindex: "0",
        "aria-label": texts.conversation,
      }, view.earlier, view.welcome, view.messages);

      view.askYes = make("button", { class: "text", type: "button" }, texts.forgetYes);
      view.askNo = make("button", { class: "text", type: "button" }, texts.forgetNo);
      view.ask = make("div", { class: "ask", role: "group", "aria-labelledby": "ask", hidden: true },
        make("p", { id: "ask" }, texts.forgetAsk), view.askYes, view.askNo);
      view.noticeText = make("p", {});
      view.noticeRetry = make("button", { class: "text", type: "button" }, texts.retry);
      view.notice = make("div", { class: "notice", part: "notice", hidden: true },
        view.noticeText, view.noticeRetry);

      view.input = make("textarea", {
        id: "input", part: "input", rows: "1", placeholder: texts.placeholder, autocomplete: "off",
        enterkeyhint: "send", "aria-describedby": "hint", dir: "auto",
      });
      view.send = make("button", {
        class: "send", part: "send", type: "submit", "aria-label": texts.send, title: texts.send,
        "aria-disabled": "true",
      }, icon("send"));
      view.hint = make("p", { id: "hint", class: "hint", hidden: true });
      view.form = make("form", { part: "composer" },
        make("label", { class: "unseen", for: "input" }, texts.input),
        make("div", { class: "row" }, view.input, view.send), view.hint);
      view.status = make("p", { class: "unseen", role: "status" });

      view.panel = make("section", {
        id: "panel", class: "panel", part: "panel", role: this.#inline ? "region" : "dialog",
        "aria-labelledby": "title", hidden: true,
      }, make("header", { part: "header" },
        make("h2", { id: "title", part: "title" }, texts.title), view.forget, view.close),
      view.log, view.ask, view.notice, view.form, view.status);
      this.#root.append(view.launcher, view.panel);
      (mount || document.body).append(this.host);
      this.#paint(color);
    }

    #paint(color) {
      const { style } = this.host;
      style.color = color;
      const rgb = getComputedStyle(this.host).color.match(/^rgba?\((\d+), (\d+), (\d+)/);
      style.color = "";
      style.setProperty("--_color", rgb ? color : SETTINGS.color);
      style.setProperty("--_on-color", rgb ? readableOn(rgb.slice(1, 4).map(Number)) : "#fff");
    }

    #listen() {
      const view = this.#view;
      const on = (element, type, act) => element.addEventListener(type, act);
      on(view.launcher, "click", () => (this.#isOpen ? this.close() : this.open()));
      on(view.close, "click", () => this.close());
      on(view.earlier, "click", () => this.#earlier());
      on(view.forget, "click", () => this.#ask(true));
      on(view.askNo, "click", () => this.#ask(false));
      on(view.askYes, "click", () => this.#forget());
      on(view.noticeRetry, "click", () => this.#load());
      on(view.input, "input", () => this.#measure());
      on(view.form, "submit", (event) => {
        event.preventDefault();
        this.#submit();
      });
      on(view.input, "keydown", (event) => {
        const isSend = event.key === "Enter" && !event.shiftKey && !event.isComposing;
        if (!isSend || event.keyCode === 229) return;
        event.preventDefault();
        this.#submit();
      });
      on(view.panel, "keydown", (event) => {
        if (event.key === "Escape" && !event.isComposing) {
          if (!view.ask.hidden) this.#ask(false);
          else if (!this.#inline) this.close();
        }
        if (event.key === "Tab" && this.#isModal()) this.#keepFocus(event);
      });
      // To the page all this is one element that is no field, so it would take letters for commands.
      for (const type of ["keydown", "keypress", "keyup"]) {
        on(this.#root, type, (event) => event.stopPropagation());
      }
    }

    // ---- opening and closing

    open() {
      this.#show();
      this.#view.input.focus({ preventScroll: true });
    }

    close() {
      if (!this.#isOpen || this.#inline) return;
      const { panel, launcher } = this.#view;
      const hadFocus = panel.contains(this.#root.activeElement);
      this.#isOpen = false;
      panel.hidden = true;
      launcher.setAttribute("aria-expanded", "false");
      launcher.setAttribute("aria-label", this.#texts.open);
      remember("closed");
      if (hadFocus) launcher.focus();
    }

    remove() {
      this.#gone.abort();
      this.#channel?.close();
      this.host.remove();
    }

    #show() {
      if (this.#isOpen) return;
      const { panel, launcher, dot } = this.#view;
      this.#isOpen = true;
      panel.hidden = false;
      dot.hidden = true;
      panel.setAttribute("aria-modal", String(this.#isModal()));
      launcher.setAttribute("aria-expanded", "true");
      launcher.setAttribute("aria-label", this.#texts.close);
      if (!this.#inline) remember("open");
      if (!this.#isLoaded) this.#load();
      this.#toEnd(true);
    }

    // On a small screen it covers the page.
    #isModal() {
      return this.#narrow.matches && !this.#inline;
    }

    #keepFocus(event) {
      const all = [...this.#view.panel.querySelectorAll("button, textarea, a[href], [tabindex='0']")];
      const reachable = all.filter((element) => element.offsetParent !== null);
      const [first, last] = [reachable[0], reachable.at(-1)];
      const from = event.shiftKey ? first : last;
      if (this.#root.activeElement !== from) return;
      event.preventDefault();
      (event.shiftKey ? last : first).focus();
    }

    // ---- what was said before

    async #load() {
      this.#notice(null);
      try {
        if (!await this.#client.validate()) {
          this.#isLoaded = true;
          return;
        }
        const page = await this.#client.history();
        this.#isLoaded = true;
        this.#cursor = page.next_cursor;
        this.#view.earlier.hidden = !page.next_cursor;
        this.#merge(page.items.reverse());
        this.#toEnd(true);
      } catch (error) {
        this.#notice(this.#reason(error));
      }
    }

    async #earlier() {
      const { log, earlier, messages } = this.#view;
      try {
        const page = await this.#client.history(this.#cursor);
        const before = log.scrollHeight;
        this.#cursor = page.next_cursor;
        const known = new Set(messages.children);
        this.#merge(page.items.reverse());
        const added = [...messages.children].filter((node) => !known.has(node));
        messages.prepend(...added);
        log.scrollTop += log.scrollHeight - before;
        earlier.hidden = !page.next_cursor;
        log.focus();
      } catch (error) {
        this.#notice(this.#reason(error));
      }
    }

    // Shows what is not shown yet, oldest first, and follows an answer that still comes.
    #merge(items) {
      for (const item of items) {
        const known = this.#shown.get(item.id) || this.#shown.get(item.client_message_id);
        if (known) {
          this.#shown.set(item.id, known);
          continue;
        }
        const message = this.#message(item.role === "user" ? "user" : "assistant");
        this.#shown.set(item.id, message);
        message.view.append(item.content);
        if (item.status === "failed") this.#note(message, this.#texts.answer);
        if (item.status === "streaming") {
          this.#see({ id: item.id, isOurs: false, answer: message });
        }
      }
      this.#view.forget.hidden = this.#shown.size === 0;
    }

    async #changedElsewhere() {
      if (!this.#isLoaded) return;
      if (this.#current) {
        this.#isStale = true;
        return;
      }
      this.#isStale = false;
      try {
        const before = this.#client.session;
        const session = await this.#client.validate();
        if (session !== before) this.#empty();
        if (session) this.#merge((await this.#client.history()).items.reverse());
        this.#toEnd();
      } catch {
        // It is seen the next time.
      }
    }

    #empty() {
      this.#shown.clear();
      this.#view.messages.replaceChildren();
      this.#view.earlier.hidden = true;
      this.#view.forget.hidden = true;
    }

    // ---- deleting

    #ask(asks) {
      const { ask, askNo, forget, form } = this.#view;
      ask.hidden = !asks;
      form.hidden = asks;
      if (asks) askNo.focus();
      else if (forget.hidden) this.#view.input.focus();
      else forget.focus();
    }

    async #forget() {
      try {
        if (this.#client.session) await this.#client.forget();
        this.#empty();
        this.#channel?.postMessage("forgotten");
        this.#tell(this.#texts.forgotten);
      } catch (error) {
        this.#notice(this.#reason(error));
      }
      this.#ask(false);
    }

    // ---- saying something

    #measure() {
      const { input, hint, send } = this.#view;
      const most = SETTINGS.messageMaxChars;
      const count = countChars(input.value);
      const isLong = count > most;
      hint.hidden = count < most * 0.9;
      hint.classList.toggle("bad", isLong);
      const text = fill(isLong ? this.#texts.long : this.#texts.left, { n: count, most });
      if (!hint.hidden && hint.textContent !== text) hint.textContent = text;
      if (isLong) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      send.setAttribute("aria-disabled", String(count === 0 || isLong || this.#current !== null));
      input.style.height = "auto";
      input.style.height = `${input.scrollHeight + 2}px`;
    }

    #submit() {
      const { input } = this.#view;
      const text = cleanText(input.value);
      const count = countChars(text);
      if (this.#current || count === 0 || count > SETTINGS.messageMaxChars) return;
      const question = this.#message("user");
      question.view.append(text);
      const exchange = {
        text, clientId: randomId(), isOurs: true, question, answer: this.#message("assistant"),
      };
      this.#shown.set(exchange.clientId, question);
      input.value = "";
      this.#notice(null);
      this.#see(exchange);
      this.#measure();
      this.#toEnd(true);
    }

    // Sees to an answer until it is there or has failed.
    async #see(exchange) {
      const { answer } = exchange;
      this.#current = exchange;
      this.#note(answer, null);
      this.#wait(answer, true);
      const flush = gathered((text) => {
        const isAtEnd = this.#isAtEnd();
        this.#wait(answer, false);
        answer.view.append(text);
        if (isAtEnd) this.#toEnd(true);
      });
      const on = {
        start: () => {
          flush.now();
          answer.view.clear();
          this.#shown.set(exchange.id, answer);
          this.#view.forget.hidden = false;
          if (exchange.isOurs) this.#channel?.postMessage("said");
        },
        text: (text) => {
          this.#note(answer, null);
          flush.add(text);
        },
        waiting: () => {
          this.#note(answer, this.#texts.waiting, { isCalm: true });
          this.#tell(this.#texts.waiting);
        },
      };
      try {
        await this.#client.answer(exchange, on, this.#gone.signal);
        flush.now();
        this.#note(answer, null);
        this.#tell(`${this.#texts.assistant}: ${answer.view.text}`);
        this.#markUnread();
      } catch (error) {
        flush.now();
        if (this.#gone.signal.aborted) return;
        this.#failed(exchange, error);
      }
      this.#wait(answer, false);
      this.#current = null;
      if (exchange.isOurs) this.#channel?.postMessage("said");
      this.#measure();
      if (this.#isStale) this.#changedElsewhere();
    }

    #failed(exchange, error) {
      const { answer } = exchange;
      const reason = this.#reason(error);
      const canRetry = exchange.isOurs && !["refused", "invalid"].includes(error.kind);
      const retry = canRetry && (() => {
        if (this.#current) return;
        // An answer that has failed is not asked for again by the name of its message.
        if (["answer", "session"].includes(error.kind)) {
          Object.assign(exchange, { clientId: randomId(), id: undefined, lastEventId: undefined });
        }
        this.#see(exchange);
        this.#view.input.focus();
      });
      this.#note(answer, reason, { retry });
      this.#tell(reason);
      this.#toEnd();
    }

    #reason(error) {
      if (!(error instanceof Failure)) {
        // An answer that was cut, or is not ours: it is told, and can be tried again.
        console.warn("Tollgate chat:", error);
        return this.#texts.server;
      }
      if (error.kind === "offline" || error.kind === "refused") {
        console.warn(`Tollgate chat: ${location.origin} must be one of ALLOWED_ORIGINS, and ${this.#client.base} be reached.`);
      }
      return fill(this.#texts[error.kind], { n: error.retryAfter });
    }

    // ---- what is shown

    #message(speaker) {
      const label = speaker === "user" ? this.#texts.you : this.#texts.assistant;
      const bubble = make("div", { class: "bubble", part: `bubble ${speaker}` });
      const dots = make("span", { class: "dots", role: "img", "aria-label": this.#texts.answering },
        make("i"), make("i"), make("i"));
      const note = make("p", { class: "note", hidden: true });
      const retry = make("button", { class: "text", type: "button", hidden: true }, this.#texts.retry);
      const root = make("div", { class: `message ${speaker}`, part: `message ${speaker}-message` },
        make("span", { class: "unseen" }, `${label}: `), bubble, note, retry);
      this.#view.messages.append(root);
      this.#view.welcome.hidden = true;
      return { root, bubble, dots, note, retry, view: new TextView(bubble) };
    }

    #wait({ bubble, dots, view }, waits) {
      if (waits && view.text === "") bubble.append(dots);
      else dots.remove();
      bubble.hidden = !waits && view.text === "";
    }

    #note({ note, retry }, text, { isCalm = false, retry: act = null } = {}) {
      note.hidden = text === null;
      if (text !== null && note.textContent !== text) note.textContent = text;
      note.classList.toggle("calm", isCalm);
      retry.hidden = !act;
      retry.onclick = act || null;
    }

    #notice(text) {
      const { notice, noticeText } = this.#view;
      notice.hidden = text === null;
      noticeText.textContent = text ?? "";
      if (text !== null) this.#tell(text);
    }

    // Once, to those who hear the page.
    #tell(text) {
      const { status } = this.#view;
      status.textContent = "";
      setTimeout(() => { status.textContent = text; }, 50);
    }

    #markUnread() {
      if (this.#isOpen) return;
      this.#view.dot.hidden = false;
      this.#view.launcher.setAttribute("aria-label", this.#texts.unread);
    }

    #isAtEnd() {
      const { log } = this.#view;
      return log.scrollHeight - log.scrollTop - log.clientHeight < 48;
    }

    #toEnd(always = false) {
      const { log } = this.#view;
      if (always || this.#isAtEnd()) log.scrollTop = log.scrollHeight;
    }
  }

  // Gathers what comes between two frames; a hidden page has none, so a while is enough, too.
  function gathered(show) {
    let text = "";
    let timer = 0;
    const now = () => {
      clearTimeout(timer);
      timer = 0;
      const all = text;
      text = "";
      if (all !== "") show(all);
    };
    const add = (more) => {
      text += more;
      timer = timer || setTimeout(now, 16);
    };
    return { add, now };
  }

  function fill(text, values) {
    return text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
  }

  // Whether the chat is open, for the next page of this tab; nothing else is kept in the browser.
  const OPEN = "tollgate-chat";

  function remember(state) {
    try {
      sessionStorage.setItem(OPEN, state);
    } catch {
      // It begins closed, then.
    }
  }

  function remembered() {
    try {
      return sessionStorage.getItem(OPEN);
    } catch {
      return null;
    }
  }

  // ------------------------------------------------------------------ the start

  // Where the API is, by where the script came from.
  function baseOf(source) {
    const url = new URL(source);
    const before = url.pathname.replace(/(\/api(\/v1)?)?\/chat\/widget\.js$/, "");
    return `${url.origin}${before}/api/v1`;
  }

  function optionsOf({ dataset, src }) {
    const wanted = dataset.lang || document.documentElement.lang || navigator.language || "en";
    const lang = [wanted, wanted.split("-")[0]].find((name) => Object.hasOwn(TEXTS, name)) || "en";
    const texts = { ...TEXTS[lang] };
    for (const name of Object.keys(texts)) {
      const attribute = `text${name[0].toUpperCase()}${name.slice(1)}`;
      texts[name] = dataset[attribute] ?? texts[name];
    }
    texts.title = dataset.title ?? texts.title;
    texts.welcome = dataset.welcome ?? texts.welcome;
    // Without the query: it is the workflow's to read, and may hold what is not.
    const here = location.origin + location.pathname;
    const isWeb = location.protocol.startsWith("http") && here.length <= 2048;
    return {
      lang,
      texts,
      base: dataset.server ? `${dataset.server.replace(/\/+$/, "")}/api/v1` : baseOf(src),
      page: { hostname: location.hostname, url: isWeb ? here : undefined },
      mount: dataset.mount && document.querySelector(dataset.mount),
      theme: dataset.theme,
      position: dataset.position,
      color: dataset.color || SETTINGS.color,
      open: dataset.open !== undefined && dataset.open !== "false",
    };
  }

  function start(script) {
    const options = optionsOf(script);
    const place = options.mount || document.body;
    // Included twice, it is there once.
    if ([...place.children].some((child) => child.localName === "tollgate-chat")) return;
    const widget = new Widget(options);
    globalThis.TollgateChat = Object.freeze({
      open: () => widget.open(),
      close: () => widget.close(),
      remove: () => widget.remove(),
      element: widget.host,
    });
  }

  if (typeof document === "undefined") {
    // Not in a page, but in a test.
    module.exports = { EventParser, Blocks, inlineParts, cleanText, countChars, Client, Failure };
    return;
  }
  const script = document.currentScript || document.querySelector("script[src*='/chat/widget.js']");
  if (document.body) start(script);
  else document.addEventListener("DOMContentLoaded", () => start(script));
})();

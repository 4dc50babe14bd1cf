(function rewrite(prefix, hosts) {
  "use strict";
  // Put at the top of pages and workers; lines that are comments are left out. What scripts ask
  // for goes to the prefix, as what is written in the page does. Everything is wrapped in a Proxy,
  // so that names, prototypes, subclasses and what a page puts over it stay what they are.
  var scope = self, once = Symbol.for("tollgate.rewrite");
  if (scope[once]) return;
  Object.defineProperty(scope, once, {value: true});
  var NativeURL = scope.URL, doc = scope.document, place = scope.location;
  // Of a blob's worker and of a page in an attribute, the location says little.
  var home = new NativeURL(scope.origin && scope.origin !== "null" ? scope.origin : place.href);

  // The URL under the prefix; the value itself where there is nothing to change.
  function map(value) {
    var text, url, socket, own;
    if (value === null || value === undefined) return value;
    try {
      text = String(value);
      url = new NativeURL(text, doc ? doc.baseURI : place.href);
    } catch (invalid) {
      return value;
    }
    socket = url.protocol === "ws:" || url.protocol === "wss:";
    if (!socket && url.protocol !== "http:" && url.protocol !== "https:") return value;
    own = url.host === home.host;
    if (url.username || !own && hosts.indexOf(url.host) < 0) return value;
    var path = url.pathname, there = path === prefix || path.indexOf(prefix + "/") === 0;
    if (path === "/.tollgate" || path.indexOf("/.tollgate/") === 0) there = true;
    if (own && there) return value;
    var end = (there ? "" : prefix) + path + url.search + url.hash;
    if (socket) return (home.protocol === "https:" ? "wss://" : "ws://") + home.host + end;
    return home.protocol + "//" + home.host + end;
  }

  var trusted = null;
  try {
    trusted = scope.trustedTypes && scope.trustedTypes.createPolicy("tollgate", {
      createScriptURL: function (url) { return url; }
    });
  } catch (refused) { /* such values stay as they are */ }

  // For attributes: paths stay paths, and what only a page's own policy may make stays its kind.
  function mapAttribute(value) {
    var to = map(value);
    if (to === value) return value;
    if (to.indexOf(home.origin + "/") === 0) to = to.slice(home.origin.length);
    if (scope.TrustedScriptURL && value instanceof scope.TrustedScriptURL) {
      return trusted ? trusted.createScriptURL(to) : value;
    }
    return to;
  }

  function mapSet(text) {
    return String(text).replace(/([^\s,]\S*[^\s,])(\s+[^,]+)?(,|$)/g, function (all, url, size, end) {
      return mapAttribute(url) + (size || "") + end;
    });
  }

  function mapStyle(text) {
    return String(text).replace(/(url\(\s*)("[^"]*"|'[^']*'|[^"'()\s]+)|(@import\s+)("[^"]*"|'[^']*')/gi, mapQuoted);
  }

  function mapQuoted(all, head, url, head2, url2) {
    head = head || head2;
    url = url || url2;
    var quote = /^["']/.test(url) ? url[0] : "";
    return head + quote + mapAttribute(quote ? url.slice(1, -1) : url) + quote;
  }

  // Markup that is parsed at once, before it could be put right.
  function mapWritten(text) {
    return String(text).replace(/<[a-z][^>]*>/gi, function (tag) {
      return tag.replace(/(\s(?:src|href|action|formaction|poster)\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)/gi, mapQuoted);
    });
  }

  // Changes the argument at a position of a method.
  function method(owner, name, at, change) {
    if (!owner || typeof owner[name] !== "function") return;
    owner[name] = new Proxy(owner[name], {
      apply: function (native, self, args) {
        if (args.length > at) args[at] = change(args[at], args, self);
        return Reflect.apply(native, self, args);
      }
    });
  }

  // Changes the first argument of a constructor.
  function maker(name, change) {
    if (typeof scope[name] !== "function") return;
    scope[name] = new Proxy(scope[name], {
      construct: function (native, args, target) {
        if (args.length > 0) args[0] = change(args[0], args);
        return Reflect.construct(native, args, target);
      }
    });
  }

  // Changes all arguments of a method.
  function methodAll(owner, name, change) {
    if (!owner || typeof owner[name] !== "function") return;
    owner[name] = new Proxy(owner[name], {
      apply: function (native, self, args) { return Reflect.apply(native, self, args.map(change)); }
    });
  }

  // Changes what a property is set to.
  function property(owner, name, change) {
    var found = owner && Object.getOwnPropertyDescriptor(owner.prototype, name);
    if (!found || !found.set || !found.configurable) return;
    var set = found.set;
    found.set = function (value) { return set.call(this, change(value, this)); };
    Object.defineProperty(owner.prototype, name, found);
  }

  // A Request was mapped when it was made.
  function mapRequest(input) {
    return scope.Request && input instanceof scope.Request ? input : map(input);
  }

  function mapScript(url) {
    return scope.TrustedScriptURL && url instanceof scope.TrustedScriptURL ? mapAttribute(url) : map(url);
  }

  method(scope, "fetch", 0, mapRequest);
  maker("Request", mapRequest);
  ["WebSocket", "EventSource"].forEach(function (name) { maker(name, map); });

  // A worker that is made of a blob gets this script, too.
  var blobs = new Map(), make = NativeURL.createObjectURL;
  // A service worker has none.
  if (make) NativeURL.createObjectURL = new Proxy(make, {
    apply: function (native, self, args) {
      var url = Reflect.apply(native, self, args);
      if (args[0] instanceof scope.Blob) blobs.set(url, args[0]);
      return url;
    }
  });
  method(NativeURL, "revokeObjectURL", 0, function (url) { blobs.delete(String(url)); return url; });
  function mapWorker(url) {
    var blob = blobs.get(String(url));
    if (!blob) return mapScript(url);
    return make.call(NativeURL, new scope.Blob([ownText(), "\n", blob], {type: blob.type}));
  }
  // The very text that pages have, whose hash their policies let in.
  function ownText() { return "(" + rewrite + ")(" + JSON.stringify(prefix) + ", " + JSON.stringify(hosts) + ");"; }
  ["Worker", "SharedWorker"].forEach(function (name) { maker(name, mapWorker); });
  method(scope.XMLHttpRequest && scope.XMLHttpRequest.prototype, "open", 1, map);
  methodAll(scope, "importScripts", function (url) { return mapScript(url); });
  if (!doc) return;

  var workers = scope.ServiceWorkerContainer && scope.ServiceWorkerContainer.prototype;
  method(workers, "register", 0, function (url, args) {
    if (args[1] && args[1].scope !== undefined) {
      args[1] = Object.assign({}, args[1], {scope: map(args[1].scope)});
    }
    return mapScript(url);
  });
  method(workers, "getRegistration", 0, map);
  method(scope.Navigator.prototype, "sendBeacon", 0, map);
  ["pushState", "replaceState"].forEach(function (name) { method(scope.History.prototype, name, 2, map); });
  method(scope, "open", 0, function (url) { return url === "" ? url : map(url); });
  maker("Audio", map);
  maker("FontFace", function (family, args) {
    if (typeof args[1] === "string") args[1] = mapStyle(args[1]);
    return family;
  });

  // `location` cannot be wrapped. Where navigations can be seen, they are led to the right place.
  if (scope.navigation && scope.navigation.addEventListener) {
    scope.navigation.addEventListener("navigate", function (event) {
      var from = event.destination.url, to = map(from), kind = event.navigationType;
      if (to === from || !event.cancelable || event.formData || event.downloadRequest) return;
      if (kind !== "push" && kind !== "replace") return;
      event.preventDefault();
      setTimeout(function () { kind === "replace" ? place.replace(to) : place.assign(to); });
    });
  }

  var urls = {
    src: 1, href: 1, action: 1, formaction: 1, poster: 1, cite: 1, background: 1, manifest: 1,
    "xlink:href": 1
  };
  function attribute(element, name, value) {
    name = String(name).toLowerCase();
    if (urls[name] === 1 || name === "data" && element.localName === "object") return mapAttribute(value);
    if (name === "srcset" || name === "imagesrcset") return mapSet(value);
    if (name === "style") return mapStyle(value);
    return value;
  }
  var element = scope.Element.prototype, setNative = element.setAttribute;
  method(element, "setAttribute", 1, function (value, args, self) { return attribute(self, args[0], value); });
  method(element, "setAttributeNS", 2, function (value, args, self) { return attribute(self, args[1], value); });
  var properties = {
    HTMLAnchorElement: "href", HTMLAreaElement: "href", HTMLBaseElement: "href",
    HTMLLinkElement: "href", HTMLScriptElement: "src", HTMLImageElement: "src",
    HTMLMediaElement: "src", HTMLSourceElement: "src", HTMLTrackElement: "src",
    HTMLIFrameElement: "src", HTMLFrameElement: "src", HTMLEmbedElement: "src",
    HTMLInputElement: "src", HTMLObjectElement: "data", HTMLFormElement: "action",
    HTMLButtonElement: "formAction", HTMLVideoElement: "poster"
  };
  Object.keys(properties).forEach(function (name) { property(scope[name], properties[name], mapAttribute); });
  property(scope.HTMLInputElement, "formAction", mapAttribute);
  property(scope.HTMLIFrameElement, "srcdoc", function (text) {
    return typeof text === "string" ? "<scr" + "ipt>" + ownText() + "<\/scr" + "ipt>" + text : text;
  });
  methodAll(scope.Document.prototype, "write", mapWritten);
  methodAll(scope.Document.prototype, "writeln", mapWritten);

  // Styles: as text of their element, as rules, and as what a script sets.
  function ofStyle(value, node) {
    return node.localName === "style" && value !== null ? mapStyle(value) : value;
  }
  property(scope.Node, "textContent", ofStyle);
  method(scope.Node.prototype, "appendChild", 0, function (child, args, self) {
    if (self.localName === "style" && child && child.nodeType === 3) child.data = mapStyle(child.data);
    return child;
  });
  var sheet = scope.CSSStyleSheet.prototype;
  ["insertRule", "replace", "replaceSync"].forEach(function (name) { method(sheet, name, 0, mapStyle); });
  method(scope.CSSStyleDeclaration.prototype, "setProperty", 1, function (value) {
    return typeof value === "string" ? mapStyle(value) : value;
  });
  property(scope.HTMLImageElement, "srcset", mapSet);
  property(scope.HTMLSourceElement, "srcset", mapSet);
  property(scope.HTMLLinkElement, "imageSrcset", mapSet);
  property(scope.Document, "cookie", function (text) {
    text = String(text);
    if (/^\s*__host-/i.test(text)) return text;
    return text.replace(/(;\s*path\s*=\s*)(\/[^;]*)/i, function (all, head, path) {
      path = path.trim();
      var there = path === prefix || path.indexOf(prefix + "/") === 0;
      return head + (there ? path : prefix + (path === "/" ? "" : path));
    });
  });

  // What came by other ways is put right when it appears, forms and links once more when they are
  // used.
  var names = Object.keys(urls).filter(function (name) { return name !== "xlink:href"; });
  names = names.concat("srcset", "imagesrcset", "data", "style");
  var selector = names.map(function (name) { return "[" + name + "]"; }).join();
  selector = selector.replace("[style]", "[style*='url(']");
  function fix(node) {
    return names.filter(function (name) {
      var value = node.getAttribute(name), to = value === null ? null : attribute(node, name, value);
      if (to !== value) setNative.call(node, name, to);
      return to !== value;
    }).length > 0;
  }
  function fixAll(node) {
    if (node.nodeType !== 1) return;
    if (node.matches(selector)) fix(node);
    if (node.firstElementChild) node.querySelectorAll(selector).forEach(fix);
  }
  var observer = new MutationObserver(function (records) {
    records.forEach(function (record) {
      if (record.type === "attributes") {
        if (record.target.matches("[style*='url(']")) fix(record.target);
      } else record.addedNodes.forEach(fixAll);
    });
  });
  var watched = {childList: true, subtree: true, attributeFilter: ["style"]};
  observer.observe(doc, watched);

  // Markup is put right before it is used: an image would be asked for, and its failure seen.
  var inner = Object.getOwnPropertyDescriptor(element, "innerHTML");
  function mapMarkup(html, owner) {
    if (typeof html !== "string" || !/=\s*["']?\s*(\/|https?:)|url\(/i.test(html)) return html;
    if (owner.namespaceURI && owner.namespaceURI !== "http://www.w3.org/1999/xhtml") return html;
    if (owner.localName === "style") return mapStyle(html);
    if (/^(template|script|textarea|title)$/.test(owner.localName)) return html;
    try {
      var inert = doc.createElement("template"), changed = 0;
      inner.set.call(inert, html);
      inert.content.querySelectorAll(selector).forEach(function (node) { changed += fix(node); });
      return changed ? inner.get.call(inert) : html;
    } catch (refused) {
      return html;
    }
  }
  property(scope.Element, "innerHTML", mapMarkup);
  property(scope.ShadowRoot, "innerHTML", mapMarkup);
  property(scope.Element, "outerHTML", mapMarkup);
  method(element, "insertAdjacentHTML", 1, function (html, args, self) { return mapMarkup(html, self); });

  var attach = element.attachShadow;
  if (attach) {
    element.attachShadow = new Proxy(attach, {
      apply: function (native, self, args) {
        var root = Reflect.apply(native, self, args);
        observer.observe(root, watched);
        return root;
      }
    });
  }
  function used(event) {
    var path = event.composedPath ? event.composedPath() : [event.target];
    path.forEach(function (node) { if (node.nodeType === 1 && node.matches("a,area,form")) fix(node); });
    if (event.submitter) fix(event.submitter);
  }
  scope.addEventListener("click", used, true);
  scope.addEventListener("auxclick", used, true);
  scope.addEventListener("submit", used, true);
  ["submit", "requestSubmit"].forEach(function (name) {
    var native = scope.HTMLFormElement.prototype[name];
    if (!native) return;
    scope.HTMLFormElement.prototype[name] = new Proxy(native, {
      apply: function (target, self, args) {
        if (self && self.nodeType === 1) fix(self);
        return Reflect.apply(target, self, args);
      }
    });
  });
})

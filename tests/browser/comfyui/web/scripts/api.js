// The two ways in which the front end makes its URLs: from where the page is, and
// from the root.
class Api extends EventTarget {
  host = location.host;
  base = location.pathname.split("/").slice(0, -1).join("/");
  fileURL(route) { return this.base + route; }
  apiURL(route) { return `${this.base}/api${route}`; }
  fetch(route, options) { return fetch(this.apiURL(route), { cache: "no-cache", ...options }); }
  open(clientId) {
    this.socket = new WebSocket(`ws${location.protocol === "https:" ? "s" : ""}://${this.host}${this.base}/ws?clientId=${clientId}`);
    this.socket.binaryType = "arraybuffer";
    return this.socket;
  }
}
export const api = new Api();

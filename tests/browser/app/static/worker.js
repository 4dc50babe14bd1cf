importScripts("/static/classic.js");
const work = async (post) => {
  const data = await fetch("/data").then(answer => answer.json());
  const socket = await new Promise((done, fail) => {
    const socket = new WebSocket("/ws");
    socket.onmessage = event => { done(JSON.parse(event.data).name); socket.close(); };
    socket.onerror = () => fail(new Error("socket"));
  }).catch(String);
  const request = new XMLHttpRequest();
  request.open("GET", "/data", false);
  request.send();
  post({ fetched: data.name, socket, xhr: JSON.parse(request.responseText).name, classic: globalThis.classic, href: location.pathname });
};
if ("onconnect" in self) onconnect = event => work(value => event.ports[0].postMessage(value)).catch(error => event.ports[0].postMessage({ error: String(error) }));
else work(value => postMessage(value)).catch(error => postMessage({ error: String(error) }));

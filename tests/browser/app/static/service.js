addEventListener("install", () => skipWaiting());
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => {
  if (new URL(event.request.url).searchParams.has("by-service-worker"))
    event.respondWith(fetch("/data").then(answer => answer.json()).then(data => new Response(JSON.stringify({ worker: data.name, scope: new URL(registration.scope).pathname }))));
});

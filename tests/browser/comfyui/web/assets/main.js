import { api } from "../scripts/api.js";
import { app } from "/scripts/app.js";

const found = {};
async function main() {
  for (const path of await (await api.fetch("/extensions")).json()) await import(api.fileURL(path));
  found.extensions = app.extensions;
  found.nodes = Object.keys(await (await api.fetch("/object_info")).json());
  found.tooltip = (await (await fetch("/object_info/KSampler")).json()).KSampler.input.required.tooltip[1].default;
  found.stats = (await (await api.fetch("/system_stats")).json()).system.comfyui_version;

  const previews = [], ended = Promise.withResolvers(), open = Promise.withResolvers();
  const socket = api.open("page");
  socket.onerror = () => ended.reject(new Error("socket"));
  socket.onmessage = async ({ data }) => {
    if (data instanceof ArrayBuffer) {
      const view = new DataView(data);
      previews.push([view.getUint32(0), view.getUint32(4), data.byteLength - 8, data]);
      return;
    }
    const { type, data: told } = JSON.parse(data);
    if (type === "status") open.resolve(told.sid);
    if (type === "executed") ended.resolve(told.output.images[0]);
  };
  found.sid = await open.promise;

  const form = new FormData();
  form.append("image", new Blob([new Uint8Array(1_000_000)]), "page.png");
  found.uploaded = (await (await api.fetch("/upload/image", { method: "POST", body: form })).json()).name;

  const queued = await api.fetch("/prompt", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ client_id: "page", prompt: { 3: { class_type: "KSampler" } } }) });
  found.prompt = queued.status;
  const image = await ended.promise;
  const hex = async data => [...new Uint8Array(await crypto.subtle.digest("SHA-256", data))].map(byte => byte.toString(16).padStart(2, "0")).join("");
  found.previews = await Promise.all(previews.map(async ([event, kind, size, data]) => [event, kind, size, await hex(data)]));
  const shown = new Image();
  shown.src = api.apiURL(`/view?${new URLSearchParams(image)}`);
  document.getElementById("out").append(shown);
  await shown.decode();
  found.shown = shown.naturalWidth;
  socket.close();
}
main().catch(error => { found.error = String(error); }).finally(() => {
  document.getElementById("state").textContent = JSON.stringify(found);
  document.documentElement.dataset.done = "yes";
});

import { name } from "./module-worker-part.js";
const data = await fetch("/data").then(answer => answer.json());
postMessage({ name, fetched: data.name });

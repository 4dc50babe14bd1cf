export const name = "@@NAME@@"; export { deep } from "/static/deep.js";

export const app = { extensions: [], registerExtension(extension) { this.extensions.push(extension.name); } };

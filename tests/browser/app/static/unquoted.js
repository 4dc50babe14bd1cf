globalThis.unquoted = true;

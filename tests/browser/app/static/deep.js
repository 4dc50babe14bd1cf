export const deep = "@@NAME@@ deep";

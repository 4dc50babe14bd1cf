export const name = "@@NAME@@ dynamic";

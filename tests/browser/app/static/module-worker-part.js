export const name = "@@NAME@@";

/** What XML cannot hold in any spelling. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones
export const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Cs}/gu;

/** Text as the content of an XML or HTML element, or between double quotes. */
export function escapeXml(text: string): string {
  return text
    .replaceAll(NOT_XML, "\ufffd")
    .replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
}

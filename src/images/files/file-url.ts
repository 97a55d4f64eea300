/** The path that a `file:` URL stands for. */
export function filePath(url: string | URL): string {
  // "/C:/…" on Windows.
  return decodeURIComponent(new URL(url).pathname).replace(/^\/(?=[A-Za-z]:)/, "");
}

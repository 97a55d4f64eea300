/** The address of `path`, which may be relative to a file: `tasks/a.json` and `b.png` make `tasks/b.png`. */
export function addressFrom(file: string, path: string): string {
  // A scheme has two letters at least; one is a drive of Windows.
  const isUrl = (text: string) => /^[a-z][a-z0-9+.-]+:/i.test(text);
  if (isUrl(path)) return path;
  if (isUrl(file)) return new URL(path, file).href;
  const isAbsolute = /^([a-z]:)?[\\/]/i.test(path);
  return isAbsolute
    ? path
    : file.slice(0, Math.max(file.lastIndexOf("/"), file.lastIndexOf("\\")) + 1) + path;
}

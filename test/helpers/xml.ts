import { expect } from "vitest";

/** Checks that elements are closed in the order in which they were opened, and returns how many there are of each. */
export function readXml(text: string): Record<string, number> {
  const counts: Record<string, number> = {};
  const open: string[] = [];
  const rest = text.replace(
    /<(\/?)([\w:]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/g,
    (_, close, name, _a, empty) => {
      if (close) expect(open.pop()).toBe(name);
      else {
        counts[name] = (counts[name] ?? 0) + 1;
        if (!empty) open.push(name);
      }
      return "";
    },
  );
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]|&(?!(amp|lt|gt|quot);)/);
  return counts;
}

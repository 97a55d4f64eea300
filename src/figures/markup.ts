import { escapeXml } from "./escape.ts";

/** HTML that needs no more escaping; only {@link html} makes it. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** A template whose values are escaped, save those that are markup already; lists of it are joined. */
export function html(
  strings: TemplateStringsArray,
  ...values: (string | number | Markup | Markup[])[]
): Markup {
  const parts = values.map((value) =>
    Array.isArray(value) ? value.map(({ text }) => text).join("") : valueText(value),
  );
  return new Markup(String.raw({ raw: strings }, ...parts));
}

function valueText(value: string | number | Markup): string {
  return value instanceof Markup ? value.text : escapeXml(String(value));
}

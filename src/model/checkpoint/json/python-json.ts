/** Strings, which are passed over, and the three numbers that Python's json module writes and JSON does not have. */
const TOKENS = /"(?:[^"\\]|\\.)*"|(?<![\w.+-])(?:-?Infinity|NaN)(?![\w.])/g;
const NAN = "\u0001NaN";

/**
 * JSON as Python reads and writes it, and so transformers' configs: Infinity, -Infinity and NaN are numbers. Throws
 * SyntaxError.
 */
export function parsePythonJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!/Infinity|NaN/.test(text)) throw error;
    const spelt = text.replace(TOKENS, (token) => {
      if (token.startsWith('"')) return token;
      return token === "NaN" ? JSON.stringify(NAN) : token.replace("Infinity", "1e999");
    });
    try {
      return JSON.parse(spelt, (_, value) => (value === NAN ? Number.NaN : value));
    } catch {
      throw error; // its position is that of the file's own text
    }
  }
}

import { run } from "../../src/cli/program.ts";

/** What a command printed, and its exit code. */
export interface Printed {
  readonly status: number;
  readonly stdout: string;
  /** Lines of stderr. */
  readonly messages: string[];
}

/** Runs `xpatch` in this process. One at a time: what anybody prints meanwhile is taken for what the command does. */
export async function xpatch(args: readonly string[]): Promise<Printed> {
  const before = process.exitCode;
  const out = captured(process.stdout);
  const err = captured(process.stderr);
  try {
    process.exitCode = undefined;
    const code = await run(args);
    const status = Number(code ?? process.exitCode ?? 0);
    return {
      status,
      stdout: out.text(),
      messages: err
        .text()
        .split("\n")
        .filter((line) => line !== ""),
    };
  } finally {
    process.exitCode = before;
    out.end();
    err.end();
  }
}

function captured(stream: NodeJS.WriteStream) {
  const { write } = stream;
  let text = "";
  stream.write = ((chunk: string | Uint8Array, ...rest: unknown[]) => {
    text += typeof chunk === "string" ? chunk : new TextDecoder().decode(chunk);
    const done = rest.find((each) => typeof each === "function") as (() => void) | undefined;
    done?.();
    return true;
  }) as typeof write;
  const end = () => {
    stream.write = write;
  };
  return { text: () => text, end };
}

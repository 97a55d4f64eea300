import { spawn } from "node:child_process";

/** Something that set-up needs and cannot get; the message says what to install and what was tried. */
export class SetupError extends Error {
  /** The last lines that a failed command printed. */
  tail = "";
}

/**
 * Runs a command to its end and returns what it printed on stdout. With `show`, its output goes to the terminal as
 * well (on stderr), progress bars included. Rejects with SetupError when it is missing or fails.
 */
export async function command(name, args, { cwd, env, show = false } = {}) {
  const child = spawn(name, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", show ? 2 : "pipe", show ? 2 : "pipe"],
    // npm is a batch file on Windows.
    shell: process.platform === "win32" && name === "npm",
  });
  let stdout = "";
  let output = "";
  child.stdout?.on("data", (text) => {
    stdout += text;
    output += text;
  });
  child.stderr?.on("data", (text) => {
    output += text;
  });
  const status = await new Promise((resolve) => {
    child.on("error", (error) => resolve(error.code === "ENOENT" ? "it is not installed" : error.message));
    child.on("close", (code, signal) => resolve(code === 0 ? undefined : `exit status ${code ?? signal}`));
  });
  if (status !== undefined) {
    const tail = output.trim().split("\n").slice(-8).join("\n  ");
    const error = new SetupError(`${[name, ...args].join(" ")}: ${status}${tail ? `\n  ${tail}` : ""}`);
    error.tail = tail;
    throw error;
  }
  return stdout;
}

/**
 * Runs one step of set-up, saying so on stderr: its title, the seconds it takes, and how it ended. `work` gets a
 * function to call with the fraction done, for a progress bar. `quiet` is for work that writes to the terminal itself.
 */
export async function step(title, work, { quiet = false } = {}) {
  const started = Date.now();
  const live = process.stderr.isTTY && !quiet;
  let bar = "";
  const show = (mark, end) => {
    const seconds = Math.round((Date.now() - started) / 1000);
    process.stderr.write(
      `${live ? "\r\x1b[K" : ""}${mark} ${title}${mark === "…" ? bar : ""} (${seconds} s)${end}`,
    );
  };
  const progress = (fraction) => {
    const filled = Math.round(20 * Math.min(1, fraction));
    bar = ` ${"█".repeat(filled)}${"░".repeat(20 - filled)}`;
  };
  const ticker = live && setInterval(() => show("…", ""), 200);
  if (!live) process.stderr.write(`… ${title}\n`);
  try {
    const result = await work(progress);
    show("✓", "\n");
    return result;
  } catch (error) {
    show("✗", "\n");
    throw error;
  } finally {
    clearInterval(ticker);
  }
}

/** Starts a Node script as the main job: its terminal, its signals, and its exit status become ours. */
export function become(script, args, { cwd, env } = {}) {
  const child = spawn(process.execPath, [script, ...args], {
    cwd,
    env: { ...process.env, ...env },
    stdio: "inherit",
  });
  // The terminal sends these to the child as well, which decides how to end.
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
  child.on("close", (code) => {
    process.exitCode = code ?? 1;
  });
}

/** Runs `main`, printing a SetupError's message instead of its stack. */
export async function runScript(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`\nxpatch set-up: ${error.message}\n`);
    process.exitCode = 1;
  }
}

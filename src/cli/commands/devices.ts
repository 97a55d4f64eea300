import type { Command } from "commander";
import { platform } from "#platform";
import { DeviceError } from "../../errors.ts";
import type { AdapterChoice } from "../../platform/platform.ts";
import { isSoftware } from "../../platform/software-adapter.ts";
import { adapterName } from "../../tensor/adapter-name.ts";
import type { KernelChoice } from "../../tensor/kernel-choices.ts";
import { knownChoices } from "../../tensor/stored-choices.ts";
import { type CommonArguments, newCommand } from "../options/command.ts";
import { printResult } from "../terminal/output.ts";

/** An adapter as the command line shows it. */
export interface AdapterReport {
  description: string;
  vendor: string;
  architecture: string;
  /** True for software drivers. */
  fallback: boolean;
  features: string[];
  limits: Record<string, number>;
  /** Kernels that were measured on it, by class of work. */
  kernels: Record<string, KernelChoice>;
}

export interface DevicesReport {
  /** What each driver offers on this machine, or why it offers nothing. */
  found: { choice: AdapterChoice; adapter?: AdapterReport; reason?: string }[];
  /** What a program gets with this choice; `adapter` is missing when it gets an error. */
  chosen: { choice: AdapterChoice; adapter?: AdapterReport; reason?: string };
}

export function devicesCommand(): Command {
  return newCommand("devices", "Which WebGPU adapters there are, and which one is chosen", [
    "devices",
    "devices --adapter swiftshader --json",
  ]).action(async ({ adapter, json }: CommonArguments) => {
    const report = await reportDevices(adapter);
    printResult(report, json, formatDevices);
    if (!report.chosen.adapter) process.exitCode = 1;
  });
}

/** Tries every driver, and the choice (default: the environment's, else "auto") that a program would make. */
export async function reportDevices(choice?: AdapterChoice): Promise<DevicesReport> {
  const found = [];
  for (const driver of ["gpu", "lavapipe", "swiftshader"] as const) found.push(await report(driver));
  const asked = choice ?? ((process.env.XPATCH_ADAPTER || "auto") as AdapterChoice);
  return { found, chosen: await report(asked) };
}

async function report(choice: AdapterChoice): Promise<DevicesReport["chosen"]> {
  try {
    return { choice, adapter: await describe(await platform.requestAdapter({ adapter: choice })) };
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    return { choice, reason: error.message };
  }
}

async function describe({ info, features, limits }: GPUAdapter): Promise<AdapterReport> {
  const numbers: Record<string, number> = {};
  for (const name in limits) {
    const value = (limits as unknown as Record<string, unknown>)[name];
    if (typeof value === "number") numbers[name] = value;
  }
  return {
    description: adapterName(info),
    vendor: info.vendor,
    architecture: info.architecture,
    fallback: isSoftware(info),
    features: [...features].sort(),
    limits: numbers,
    kernels: Object.fromEntries(await knownChoices(adapterName(info))),
  };
}

/** The report as text for a terminal. */
export function formatDevices({ found, chosen }: DevicesReport): string {
  const lines = found.map(
    ({ choice, adapter, reason }) => `${choice.padEnd(12)}${adapter ? nameOf(adapter) : `– ${reason}`}`,
  );
  lines.push(
    "",
    `chosen (${chosen.choice}): ${chosen.adapter ? nameOf(chosen.adapter) : `none: ${chosen.reason}`}`,
  );
  if (chosen.adapter) {
    const { features, limits, kernels } = chosen.adapter;
    lines.push("", `features: ${features.join(", ")}`, "", "limits:");
    for (const [name, value] of Object.entries(limits))
      lines.push(`  ${name.padEnd(44)}${formatLimit(name, value)}`);
    lines.push("", formatKernels(kernels));
  }
  return lines.join("\n");
}

/** Which kernels were measured to be faster than those that the rules take. */
function formatKernels(kernels: AdapterReport["kernels"]): string {
  const all = Object.entries(kernels);
  if (all.length === 0) return "kernels: chosen by rules, none measured on this adapter";
  const others = all.filter(([, { kernel, rule }]) => kernel !== rule);
  const lines = others.map(
    ([work, { kernel, us, rule, ruleUs }]) =>
      `  ${work.padEnd(52)}${kernel} ${us.toFixed(0)} µs, ${rule} ${ruleUs.toFixed(0)} µs`,
  );
  return [
    `kernels: ${all.length} kinds of work measured, ${others.length} of them with another kernel than by the rules`,
    ...lines,
  ].join("\n");
}

function nameOf({ description, vendor, architecture, fallback }: AdapterReport): string {
  const family = [vendor, architecture].filter(Boolean).join(", ");
  return `${description}${family && ` (${family})`}${fallback ? ", a software driver" : ""}`;
}

function formatLimit(name: string, value: number): string {
  const bytes = /BufferSize|BindingSize|StorageSize/.test(name);
  return bytes && value >= 2 ** 20 ? `${value} (${(value / 2 ** 20).toFixed(0)} MiB)` : `${value}`;
}

import type { Device } from "../../tensor/device.ts";

/**
 * How the invocations of a kernel that works row by row share out the work: one invocation per row on software
 * drivers, where barriers are dear, and one workgroup per row on GPUs.
 */
export interface RowLoop {
  /** Invocations per workgroup. */
  readonly size: number;
  /** Parameters of the entry point. */
  readonly builtins: string;
  /**
   * WGSL statements at the head of the entry point: `row` (below `params.rows`), and the `first` element of the row
   * and the `step` to the next one for this invocation.
   */
  readonly head: string;
  /**
   * WGSL of a function `name(local, value)` that combines `value` over the invocations of a row by the expression
   * `combine` of `a` and `b`; to be called in uniform control flow.
   */
  reduction(name: string, combine: string): string;
  workgroups(rows: number): number;
}

const BUILTINS = `
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
`;

/** One lane of the software drivers' vector unit per row. */
const perInvocation: RowLoop = {
  size: 8,
  builtins: BUILTINS,
  head: `
  let row = flat_group(group, groups) * 8u + local;
  if (row >= params.rows) { return; }
  let first = 0u;
  let step = 1u;`,
  reduction: (name) => `fn ${name}(local: u32, value: f32) -> f32 { return value; }`,
  workgroups: (rows) => Math.ceil(rows / 8),
};

const perWorkgroup: RowLoop = {
  size: 128,
  builtins: BUILTINS,
  head: `
  let row = flat_group(group, groups);
  if (row >= params.rows) { return; }
  let first = local;
  let step = 128u;`,
  reduction: (name, combine) => `
var<workgroup> ${name}_cells: array<f32, 128>;
fn ${name}(local: u32, value: f32) -> f32 {
  ${name}_cells[local] = value;
  for (var half = 64u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (local < half) {
      let a = ${name}_cells[local];
      let b = ${name}_cells[local + half];
      ${name}_cells[local] = ${combine};
    }
  }
  return workgroupUniformLoad(&${name}_cells[0]);
}`,
  workgroups: (rows) => rows,
};

export function rowLoop(device: Device): RowLoop {
  return device.info.kernels === "workgroup" ? perWorkgroup : perInvocation;
}

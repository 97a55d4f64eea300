/** The part of jStat (MIT) that is used here; the package brings no types. */
declare module "jstat" {
  const jstat: {
    readonly normal: {
      /** The share of a normal distribution below `x`. */
      cdf(x: number, mean: number, deviation: number): number;
    };
    readonly studentt: {
      /** The value below which a share `p` of Student's t distribution lies. */
      inv(p: number, degreesOfFreedom: number): number;
    };
  };
  export default jstat;
}

/** The names of the tasks that come with xpatch; each is the file `tasks/<name>.json` of the package. */
export const SHIPPED_TASKS = [
  "animal-class",
  "animal-latin",
  "animal-young",
  "country-capital",
  "country-continent",
  "country-currency",
  "country-language",
  "food-color",
  "food-flavor",
  "food-type",
] as const;

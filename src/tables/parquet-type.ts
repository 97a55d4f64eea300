import type { SchemaElement, SchemaTree } from "hyparquet";

/** The type of a column that is written; `list` is of values that are never null. */
export type ParquetType =
  | "string"
  | "boolean"
  | "int32"
  | "int64"
  | "float32"
  | "float64"
  | "bytes"
  | { readonly list: "string" | "int32" | "float32" | "float64" }
  | { readonly struct: Readonly<Record<string, Exclude<ParquetType, object>>> };

type Flat = Exclude<ParquetType, object>;

const FLAT: Readonly<Record<Flat, Omit<SchemaElement, "name">>> = {
  string: { type: "BYTE_ARRAY", converted_type: "UTF8", logical_type: { type: "STRING" } },
  boolean: { type: "BOOLEAN" },
  int32: { type: "INT32" },
  int64: { type: "INT64" },
  float32: { type: "FLOAT" },
  float64: { type: "DOUBLE" },
  bytes: { type: "BYTE_ARRAY" },
};

/** A column's part of the schema, in preorder. Lists have the three levels of the format's LIST. */
export function schemaOf(name: string, type: ParquetType, nullable: boolean): SchemaElement[] {
  const repetition_type = nullable ? "OPTIONAL" : "REQUIRED";
  if (typeof type === "string") return [{ name, repetition_type, ...FLAT[type] }];
  if ("struct" in type) {
    const fields = Object.entries(type.struct);
    return [
      { name, repetition_type, num_children: fields.length },
      ...fields.flatMap(([field, of]) => schemaOf(field, of, true)),
    ];
  }
  return [
    { name, repetition_type, num_children: 1, converted_type: "LIST", logical_type: { type: "LIST" } },
    { name: "list", repetition_type: "REPEATED", num_children: 1 },
    { name: "element", repetition_type: "REQUIRED", ...FLAT[type.list] },
  ];
}

/** The type of a column that was read, in the words of Arrow: `string`, `list<float>`, `struct<bytes: binary, path: string>`. */
export function showType({ element, children }: SchemaTree): string {
  const { type, converted_type: converted, logical_type: logical } = element;
  if (children.length === 0) {
    if (logical) return FROM_LOGICAL[logical.type]?.(logical) ?? logical.type.toLowerCase();
    if (converted) return converted === "UTF8" ? "string" : converted.toLowerCase();
    return (type && FROM_PHYSICAL[type]) ?? `${type}`.toLowerCase();
  }
  const [only] = children;
  if (converted === "LIST" || logical?.type === "LIST") {
    const item = only!.children.length === 1 ? only!.children[0]! : only!;
    return `list<${showType(item)}>`;
  }
  if (converted === "MAP" || logical?.type === "MAP") return "map";
  return `struct<${children.map((child) => `${child.element.name}: ${showType(child)}`).join(", ")}>`;
}

type Logical = NonNullable<SchemaElement["logical_type"]>;

const FROM_LOGICAL: Readonly<Record<string, (logical: Logical) => string>> = {
  STRING: () => "string",
  FLOAT16: () => "halffloat",
  INTEGER: (logical) => {
    const { bitWidth, isSigned } = logical as Extract<Logical, { type: "INTEGER" }>;
    return `${isSigned ? "" : "u"}int${bitWidth}`;
  },
};

const FROM_PHYSICAL: Readonly<Record<string, string>> = {
  BOOLEAN: "bool",
  INT32: "int32",
  INT64: "int64",
  FLOAT: "float",
  DOUBLE: "double",
  BYTE_ARRAY: "binary",
  FIXED_LEN_BYTE_ARRAY: "fixed_size_binary",
};

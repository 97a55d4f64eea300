import type { Rule } from "./framework/rule.ts";
import {
  ACCURACY,
  above,
  aboveConstants,
  aboveControls,
  aboveEntities,
  MAPPING,
} from "./rule-comparisons.ts";

/** The docs have it too. */
type ExperimentRule = Rule & { readonly sunkBy: string };

/**
 * How each experiment comes to its verdict: what the table in docs/experiments.md is made of. `sweep` is the rule of that
 * experiment; one with a comma in its name is of a question beside it, whose outcome the report gives in words.
 */
export const RULES = {
  "cross-modal": {
    sunkBy:
      "The vector of the nearest task, about the same things: then a vector only says that a question is to be answered. That of examples with permuted answers: then it says what answers look like, not what belongs to what.",
    order: "each presupposes those before",
    parts: {
      works: { says: "the patch works", comparisons: aboveControls("patch") },
      better: { says: "better than the prompt", comparisons: { prompt: above("patch − prompt") } },
      mapping: MAPPING,
    },
  },
  entity: {
    sunkBy:
      "The mean of the names' residual streams: then any name does, and what was lost is not which one. Another item's name may not do either; it should bring the answers for that item.",
    order: "each by itself",
    parts: {
      prompt: {
        says: "behind examples the name's residual stream helps",
        comparisons: aboveEntities("prompt"),
      },
      patch: {
        says: "under the task vector it helps",
        comparisons: aboveEntities("patch"),
      },
      whole: {
        says: "nothing else is lost",
        comparisons: {
          name: {
            what: "name's residual stream − the written name",
            test: "not below",
            size: ACCURACY,
          },
        },
      },
    },
  },
  "llm-to-vlm": {
    sunkBy:
      "The language model's vector of the nearest task: then any vector of that model does. That of its examples with permuted answers: then what both models share is what answers look like.",
    order: "each presupposes those before",
    parts: {
      works: { says: "the language model's vectors work", comparisons: aboveControls("patch") },
      asWell: {
        says: "as well as the model's own",
        comparisons: {
          own: { what: "patch − patch of its own vectors", test: "not below", size: ACCURACY },
        },
      },
      mapping: MAPPING,
    },
  },
  instructions: {
    sunkBy:
      "The instruction's vector of the nearest task, and another task's instruction in the ensemble: then any instruction does.",
    order: "each presupposes those before",
    parts: {
      works: { says: "the instruction's vector works", comparisons: aboveControls("instruction") },
      improves: {
        says: "with it examples do better",
        comparisons: {
          fewest: above("ensemble − examples, fewest prompts", 0.05),
          most: above("ensemble − examples, most prompts", 0.05),
          anotherInstruction: above("ensemble − ensemble with another task's instruction", 0.05),
          random: above("ensemble − ensemble with a random vector", 0.05),
        },
      },
    },
  },
  "instructions, noisy": {
    sunkBy: "The best constant answer: then what is left of the instruction says no more than a word.",
    order: "each presupposes those before",
    parts: {
      works: {
        says: "the noisy instruction's vector works",
        comparisons: {
          noContext: above("noisy instruction − no context"),
          ...aboveConstants("noisy instruction"),
        },
      },
      asWell: {
        says: "as well as without noise",
        comparisons: {
          asWritten: { what: "noisy instruction − as written", test: "not below", size: ACCURACY },
        },
      },
    },
  },
  sweep: {
    sunkBy:
      "The best layer of the first or of the last quarter, and the best other token: then there is no band, and no place that carries the task.",
    order: "each by itself",
    parts: {
      band: {
        says: "one layer in the middle half works for all",
        comparisons: {
          noContext: above("the layer − no context"),
          ...aboveConstants("the layer"),
          early: above("the layer − best layer of the first quarter"),
          late: above("the layer − best layer of the last quarter"),
        },
      },
      delimiter: {
        says: "the delimiter carries the task",
        comparisons: {
          ...aboveConstants("the example's delimiter"),
          others: above("the example's delimiter − another token around it"),
          query: {
            what: "the query's delimiter − the example's",
            test: "not below",
            size: ACCURACY,
          },
        },
      },
    },
  },
  templates: {
    sunkBy:
      "The patch under another template no better than that of the nearest task: then the effect is the template's.",
    order: "each presupposes those before",
    parts: {
      works: { says: "the patch works under every template", comparisons: aboveControls("patch") },
      asWell: {
        says: "as well as under the run's own",
        comparisons: {
          own: { what: "patch − patch under the run's template", test: "not below", size: ACCURACY },
        },
      },
    },
  },
  "task-conflict": {
    sunkBy:
      "The vector of the task that the prompt asks for: then the patch breaks the prompt, and brings nothing.",
    order: "each presupposes those before",
    parts: {
      moves: {
        says: "the patch brings its task's answers",
        comparisons: {
          unpatched: above("patch's task − the same unpatched"),
          same: above("patch's task − the same under the prompt's task's vector"),
          random: above("patch's task − the same under a random vector"),
          ...aboveConstants("patch's task"),
        },
      },
      wins: {
        says: "more often than the prompt's task's",
        comparisons: { prompt: above("patch's task − prompt's task") },
      },
    },
  },
  lens: {
    sunkBy:
      "Another item's name and answer, another task's words: then what is read is what this kind of question brings up anyway.",
    order: "each presupposes those before",
    parts: {
      visible: {
        says: "the delimiter's token, task and answer can be read",
        comparisons: { control: above("reciprocal rank − another token's, item's or task's", 0.05) },
      },
      ordered: {
        says: "one after the other",
        comparisons: { step: above("layers from one phase to the next", 1) },
      },
    },
  },
  "lens, the item's name": {
    sunkBy:
      "Another item's name and another task's words, as high as the own: then the reading is of the kind, not of the item.",
    order: "each presupposes those before",
    parts: {
      visible: {
        says: "name and task can be read",
        comparisons: { control: above("reciprocal rank − another item's or task's", 0.05) },
      },
      ordered: {
        says: "the name first",
        comparisons: { step: above("layers from the name to the task", 1) },
      },
    },
  },
  clustering: {
    sunkBy:
      "The silhouette by modality, for the vectors: then they are told apart by what they were made from as well. Tasks given out at random measure chance.",
    order: "each by itself",
    parts: {
      context: {
        says: "contexts cluster by modality",
        comparisons: {
          modality: above("context: silhouette by modality"),
          task: above("context: silhouette by modality − by task"),
        },
      },
      vector: {
        says: "vectors cluster by task",
        comparisons: {
          task: above("vector: silhouette by task"),
          modality: above("vector: silhouette by task − by modality"),
        },
      },
      across: {
        says: "across modalities",
        comparisons: {
          neighbours: above("vector: neighbours in the other modality of the same task − chance"),
          probe: above("vector: task by a probe of the other modality − the most common task"),
        },
      },
      instructions: {
        says: "the instructions with them",
        comparisons: {
          nearest: above("vector: nearest instruction of the same task − the most common task"),
        },
      },
      mixed: {
        says: "and no longer by modality",
        comparisons: {
          modality: {
            what: "vector: 0 − silhouette by modality",
            test: "not below",
            size: 0.1,
          },
        },
      },
    },
  },
  grounding: {
    sunkBy:
      "Shuffled pairs of the same items: then the two modalities share a direction and a spread, not the items.",
    order: "each presupposes those before",
    parts: {
      found: {
        says: "items are found",
        comparisons: {
          chance: above("mean reciprocal rank − random order"),
          random: above("mean reciprocal rank − random vectors"),
        },
      },
      arranged: {
        says: "items are arranged alike",
        comparisons: {
          rsa: above("RSA, adjusted for shuffled pairs", 0.2),
          cka: above("CKA, adjusted for shuffled pairs", 0.2),
        },
      },
    },
  },
  arithmetic: {
    sunkBy: "A random direction of the same norm and the mean of the tasks' vectors: then any push does.",
    order: "each by itself",
    parts: {
      steers: {
        says: "the direction added makes the model do the task",
        comparisons: {
          noContext: above("direction added − no context"),
          random: above("direction added − random direction"),
          mean: above("direction added − mean of the tasks' vectors"),
          ...aboveConstants("direction added"),
        },
      },
      mixes: {
        says: "between two vectors the model goes from one task to the other",
        comparisons: {
          own: above("first task, a quarter − three quarters of the other's vector"),
          other: above("other task, three quarters − a quarter of its vector"),
          ...aboveConstants("task a quarter off its vector"),
        },
      },
    },
  },
  overriding: {
    sunkBy: "Another instruction's vector: then any instruction breaks the question.",
    order: "each presupposes those before",
    parts: {
      works: {
        says: "the patched instruction is followed",
        comparisons: {
          none: above("patch − no override"),
          anotherInstruction: above("patch − another instruction's vector"),
          random: above("patch − random vector"),
          ...aboveConstants("patch"),
        },
      },
      better: {
        says: "more often than as system prompt",
        comparisons: { system: above("patch − system prompt") },
      },
    },
  },
  "dense-text": {
    sunkBy: "The vector of the nearest task: then a vector only says that a question is to be answered.",
    order: "each presupposes those before",
    parts: {
      works: { says: "the patch works on descriptions", comparisons: aboveControls("patch") },
      better: { says: "better than the prompt", comparisons: { prompt: above("patch − prompt") } },
    },
  },
  "long-answers": {
    sunkBy: "The nearest task's vector: then any vector brings an answer.",
    order: "each presupposes those before",
    parts: {
      works: {
        says: "whole answers are right",
        comparisons: {
          noContext: above("patch − no context"),
          nearestTask: above("patch − vector of the nearest task"),
          anotherTask: above("patch − another task's vector"),
          random: above("patch − random vector"),
          ...aboveConstants("patch"),
        },
      },
      lasts: {
        says: "as often as first tokens",
        comparisons: {
          first: {
            what: "patch, whole answers − first tokens by the paper's rule",
            test: "not below",
            size: ACCURACY,
          },
        },
      },
    },
  },
  decoded: {
    sunkBy: "Sets of different tasks: then the stream reads the same whatever the task.",
    order: "each by itself",
    parts: {
      stable: {
        says: "other examples, the same tokens",
        comparisons: { sets: above("share in common, same task − different tasks") },
      },
      shared: {
        says: "another specification, the same tokens",
        comparisons: { specifications: above("share in common, same task − different tasks") },
      },
    },
  },
  "fine-tuning": {
    sunkBy:
      "A random vector of the task vector's norm: then any push away from where the model stands helps training, and the task vector has no part in it.",
    order: "each by itself",
    parts: {
      start: {
        says: "a vector is better trained from the task vector",
        comparisons: {
          zero: above("from the task vector − from zero"),
          random: above("from the task vector − from a random vector of its norm"),
          ...aboveConstants("from the task vector"),
        },
      },
      lora: {
        says: "LoRA is better with the task vector added",
        comparisons: {
          without: above("LoRA with the task vector − LoRA"),
          random: above("LoRA with the task vector − LoRA with a random vector of its norm"),
          ...aboveConstants("LoRA with the task vector"),
        },
      },
    },
  },
  efficiency: {
    sunkBy: "A patched run that chooses another token: then it is not the same work.",
    order: "each by itself",
    parts: {
      time: {
        says: "less time",
        comparisons: { time: above("log2 of the time, prompt of most examples / patch", 1) },
      },
      memory: {
        says: "less memory",
        comparisons: { memory: above("log2 of the memory beyond the weights, prompt / patch", 1) },
      },
    },
  },
} as const satisfies Readonly<Record<string, ExperimentRule>>;

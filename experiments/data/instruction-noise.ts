/**
 * Instructions put otherwise, by their text: those of the tasks that come with xpatch, which include the paper's. All end with
 * the colon that an instruction's vector is read at.
 */
export const PARAPHRASES: Readonly<Record<string, readonly string[]>> = {
  "The capital city of the country:": [
    "The city where the country has its government:",
    "Name the capital that belongs to this country:",
    "For each country, its capital:",
  ],
  "The last word of the official currency of the country:": [
    "What the money of the country is called, in one word:",
    "Name the currency that is used in this country, last word only:",
    "For each country, the final word of its currency's name:",
  ],
  "The scientific name of the animal's species in latin:": [
    "What biologists call the animal, in Latin:",
    "Name the species of this animal by its Latin binomial:",
    "For each animal, its Latin species name:",
  ],
  "The term for the baby of the animal:": [
    "What a young one of the animal is called:",
    "Name the word for this animal's offspring:",
    "For each animal, what its young are called:",
  ],
  "The color of the food:": [
    "What colour the food has:",
    "Name the colour that this food looks:",
    "For each food, the colour that it has:",
  ],
  "The flavor descriptor of the food:": [
    "How the food tastes, in one word:",
    "Name the taste of this food:",
    "For each food, a word for its taste:",
  ],
  "The continent of the country:": [
    "Which part of the world the country lies in:",
    "Name the continent that this country is on:",
    "For each country, its continent:",
  ],
  "The official language of the country:": [
    "What people in the country speak by law:",
    "Name the language that is official in this country:",
    "For each country, its official tongue:",
  ],
  "The class or group of animals that the animal belongs to:": [
    "What kind of animal it is:",
    "Name the group that this animal is counted among:",
    "For each animal, its class:",
  ],
  "The kind of food that it is:": [
    "What sort of food this is:",
    "Name the group that this food is counted among:",
    "For each food, its kind:",
  ],
};

/** Words that say nothing of any task. */
export const IRRELEVANT_WORDS: readonly string[] = [
  "yesterday",
  "perhaps",
  "window",
  "seven",
  "slowly",
  "paper",
  "between",
  "Tuesday",
  "quiet",
  "ladder",
  "therefore",
  "button",
  "almost",
  "bridge",
  "twice",
  "pencil",
];

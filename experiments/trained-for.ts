/**
 * What the training of the model that comes along (weights/vlm, by the hash that a run's setting has) asked for of names and
 * pictures.
 */
export const SHIPPED = {
  hash: "f7908c5c56b1256cd38c2c26d2702ef991e9b2fbef37304c67efe9d75b8c6086",
  says: "This model was trained to have names and pictures alike: one loss made a picture's tokens the embeddings of its name, another made the residual stream behind the picture in layers 4 to 25 what it is behind the written name (pictures in other styles, no task); so that items are found, in layer 0 to begin with, shows that this training carries over to new pictures, not that grounding comes by itself.",
} as const;

/** The first sentence about any correspondence: what of it training built in, as far as that is known. */
export function trainedFor(hash: string): string {
  return hash === SHIPPED.hash
    ? SHIPPED.says
    : "What this model's training asked for of names and pictures is not known here: where a loss drew them together (contrastive pairs, the name as the answer to the picture), that items are found shows that it worked, not that grounding comes by itself.";
}

/** Every `model_type` that `loadDualEncoder` takes. */
export const DUAL_ENCODER_KINDS = ["clip", "siglip", "siglip2"] as const;

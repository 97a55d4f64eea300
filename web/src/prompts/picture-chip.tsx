import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { useAsked } from "../ask.ts";
import { findFile } from "../pictures/own-pictures.ts";
import { type PictureRef, pictureName } from "../pictures/picture-ref.ts";
import { Icon } from "../ui/icons.tsx";
import { useAddress } from "./use-prompt.ts";

/** A picture of a prompt beside its text: small, with its name and size. */
export function PictureChip({
  picture,
  onRemove,
}: {
  picture: PictureRef;
  onRemove?: () => void;
}): JSX.Element {
  const name = pictureName(picture);
  return (
    <div class="picture-chip">
      <Thumbnail picture={picture} />
      <div class="what">
        <span class="name">{name}</span>
      </div>
      {onRemove && (
        <button type="button" class="quiet icon" aria-label={`Take ${name} out`} onClick={onRemove}>
          <Icon name="close" />
        </button>
      )}
    </div>
  );
}

/** Large pictures are decoded at the size at which they are shown, beside the page's own thread. */
export function Thumbnail({ picture }: { picture: PictureRef }): JSX.Element {
  return picture.kind === "own" ? (
    <FileThumbnail picture={picture} />
  ) : (
    <TaskThumbnail task={picture.task} input={picture.input} />
  );
}

const SIDE = 96;

function FileThumbnail({ picture }: { picture: PictureRef & { kind: "own" } }): JSX.Element {
  const [address, setAddress] = useState<string | undefined | null>(undefined);
  useEffect(() => {
    let made: string | undefined;
    let ended = false;
    void small(picture).then((blob) => {
      if (ended) return;
      made = blob && URL.createObjectURL(blob);
      setAddress(made ?? null);
    });
    return () => {
      ended = true;
      if (made) URL.revokeObjectURL(made);
    };
  }, [picture.hash]);
  if (address === null)
    return (
      <span class="thumb missing" role="img" aria-label="not in this browser" title="Not in this browser" />
    );
  return address ? <img class="thumb" src={address} alt="" /> : <span class="thumb" />;
}

async function small(picture: PictureRef & { kind: "own" }): Promise<Blob | undefined> {
  try {
    const bitmap = await createImageBitmap(await findFile(picture), {
      resizeWidth: SIDE,
      resizeQuality: "medium",
    });
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d")!.drawImage(bitmap, 0, 0);
    bitmap.close();
    return await canvas.convertToBlob({ type: "image/png" });
  } catch {
    return undefined;
  }
}

function TaskThumbnail({ task, input }: { task: string; input: string }): JSX.Element {
  const { value } = useAsked(["task picture", task, input], ({ client, signal }) =>
    client.taskPicture({ task, input }, { signal }),
  );
  const address = useAddress(value?.bytes, value?.type);
  return address ? <img class="thumb" src={address} alt="" /> : <span class="thumb" />;
}

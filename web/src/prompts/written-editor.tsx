import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { model } from "../model.ts";
import { pictureName } from "../pictures/picture-ref.ts";
import { session } from "../session.ts";
import { Icon } from "../ui/icons.tsx";
import { toastError } from "../ui/toasts.tsx";
import { PictureChip } from "./picture-chip.tsx";
import { alternate, insertPicture, type Piece, type PromptDoc, type WrittenPrompt } from "./prompt-doc.ts";
import { takeReadable } from "./prompt-spec.ts";

export interface WrittenEditorProps {
  readonly name: string;
  readonly value: WrittenPrompt;
  readonly onChange: (label: string, value: PromptDoc, same?: string) => void;
}

interface Caret {
  readonly piece: number;
  readonly offset: number;
}

/** Text with pictures in it. Pictures are dropped, pasted or picked, and go where the caret was. */
export function WrittenEditor({ name, value, onChange }: WrittenEditorProps): JSX.Element {
  const { pieces } = value;
  // Where the caret is, or was before the focus left; read when it is needed, since no event tells of each move.
  const caret = useRef<() => Caret>(() => ({ piece: 0, offset: Number.POSITIVE_INFINITY }));
  const [over, setOver] = useState(false);
  const [taking, setTaking] = useState(0);
  // While a picture is read the text may go on being written.
  const latest = useRef(value);
  latest.current = value;
  const state = model.value;
  const takesPictures = state.status === "ready" && state.summary.takesPictures;
  const change = (label: string, next: readonly Piece[], same?: string) =>
    onChange(label, { ...value, pieces: next }, same);

  const take = async (files: readonly File[]) => {
    const { value: open } = session;
    if (open.status !== "open") return;
    if (!takesPictures) {
      toastError(new Error("this model takes no pictures; load one that does, such as a LLaVA"));
      return;
    }
    for (const file of files) {
      setTaking((count) => count + 1);
      try {
        const picture = await takeReadable(open.client, file);
        const { pieces: now } = latest.current;
        const at = clamp(caret.current(), now);
        caret.current = () => ({ piece: at.piece + 2, offset: 0 });
        const next = { ...latest.current, pieces: insertPicture(now, at, picture) };
        latest.current = next; // several files are put in one after the other
        onChange(`put ${pictureName(picture)} in`, next);
      } catch (error) {
        toastError(error);
      } finally {
        setTaking((count) => count - 1);
      }
    }
  };

  const onDrop = (event: DragEvent) => {
    setOver(false);
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length === 0) return;
    // A folder is for the page, which loads it as a model.
    const isFolder = [...event.dataTransfer!.items].some((item) => item.webkitGetAsEntry()?.isDirectory);
    if (isFolder) return;
    event.preventDefault();
    void take(files);
  };
  const onDragOver = (event: DragEvent) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    setOver(true);
  };

  return (
    <div
      role="group"
      aria-label={`The ${name}, in parts`}
      class={over ? "written over" : "written"}
      onDragOver={onDragOver}
      onDragLeave={() => setOver(false)}
      onDrop={onDrop}
      onPaste={(event: ClipboardEvent) => {
        const files = [...(event.clipboardData?.files ?? [])];
        if (files.length === 0) return;
        event.preventDefault();
        void take(files);
      }}
    >
      {pieces.map((piece, i) =>
        "text" in piece ? (
          <textarea
            key={i}
            class={pieces.length > 1 && piece.text === "" ? "between" : ""}
            aria-label={pieces.length === 1 ? `Text of the ${name}` : `Text ${i / 2 + 1} of the ${name}`}
            rows={Math.max(pieces.length === 1 ? 3 : 1, piece.text.split("\n").length)}
            spellcheck={false}
            value={piece.text}
            placeholder={pieces.length === 1 ? "Q: Greece⏎A:" : ""}
            onInput={({ currentTarget }) => {
              change(
                `write the ${name}`,
                pieces.map((each, k) => (k === i ? { text: currentTarget.value } : each)),
                `${name}-text-${i}`,
              );
            }}
            onFocus={({ currentTarget }) => {
              caret.current = () => ({ piece: i, offset: currentTarget.selectionStart });
            }}
          />
        ) : (
          <PictureChip
            key={i}
            picture={piece.picture}
            onRemove={() => change("take a picture out", alternate(pieces.filter((_, k) => k !== i)))}
          />
        ),
      )}
      <div class="row">
        <label class="button" data-off={takesPictures ? undefined : ""}>
          <Icon name="picture" />
          Put a picture in…
          <input
            type="file"
            class="visually-hidden"
            accept="image/png,image/jpeg,image/webp"
            multiple
            disabled={!takesPictures}
            onChange={({ currentTarget }) => {
              void take([...(currentTarget.files ?? [])]);
              currentTarget.value = "";
            }}
          />
        </label>
        <span class="soft" role="status">
          {taking > 0
            ? "Reading the picture…"
            : takesPictures
              ? "or drop or paste it: PNG, JPEG, WebP"
              : "This model takes no pictures."}
        </span>
      </div>
    </div>
  );
}

function clamp({ piece, offset }: Caret, pieces: readonly Piece[]): Caret {
  const at = Math.min(piece, pieces.length - 1);
  const found = pieces[at]!;
  if ("text" in found) return { piece: at, offset: Math.min(offset, found.text.length) };
  return { piece: at + 1, offset: 0 };
}

import { loadModel } from "../model.ts";
import { droppedFolder } from "../models/dropped.ts";
import { toastError } from "../ui/toasts.tsx";

/**
 * Loads the model of a folder that is dropped anywhere on the page. A view that takes drops of its own (pictures) prevents the default of
 * their events, which this then leaves alone; nothing that is dropped makes the browser leave the page.
 */
export function listenForDrops(): () => void {
  const { classList } = document.documentElement;
  let away: ReturnType<typeof setTimeout> | undefined;
  const onOver = (event: DragEvent) => {
    if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    classList.add("dropping");
    // There is no event for "no longer over the page" that can be relied on; this one comes several times a second.
    clearTimeout(away);
    away = setTimeout(() => classList.remove("dropping"), 300);
  };
  const onDrop = async (event: DragEvent) => {
    classList.remove("dropping");
    if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    try {
      const { name, files } = await droppedFolder(event.dataTransfer);
      await loadModel({ kind: "files", ref: name }, files);
    } catch (error) {
      toastError(error);
    }
  };
  addEventListener("dragover", onOver);
  addEventListener("drop", onDrop);
  return () => {
    removeEventListener("dragover", onOver);
    removeEventListener("drop", onDrop);
  };
}

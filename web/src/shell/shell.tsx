import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { keepOpen } from "../keep/keep-open.ts";
import { model } from "../model.ts";
import { store } from "../state.ts";
import { listenForKeys } from "../ui/keys.ts";
import { later } from "../ui/later.tsx";
import { Toasts } from "../ui/toasts.tsx";
import { listenForTouchDrags } from "../ui/touch-drag.ts";
import { TOUR } from "../views/tour/tour-slice.ts";
import { viewNamed } from "../views/views.ts";
import { listenForDrops } from "./drop.ts";
import { Guarded } from "./guarded.tsx";
import { Header } from "./header.tsx";
import { Help } from "./help.tsx";
import { Nav } from "./nav.tsx";
import { NeedsModel } from "./needs-model.tsx";
import { shortcuts } from "./shortcuts.ts";
import { Status } from "./status.tsx";
import { Trouble } from "./trouble.tsx";

const TourCard = later(async () => (await import("../views/tour/tour-card.tsx")).TourCard);
const KeepDialog = later(async () => (await import("../keep/keep-dialog.tsx")).KeepDialog);

/** The page: header, navigation, the view, status; the Tab key goes through them in this order. */
export function Shell(): JSX.Element {
  useEffect(() => listenForKeys(shortcuts), []);
  useEffect(listenForDrops, []);
  useEffect(listenForTouchDrags, []);
  const main = useRef<HTMLElement>(null);
  const view = viewNamed(store.view.value);
  useEffect(() => {
    document.title = view ? `${view.title} – xpatch explorer` : "xpatch explorer";
  }, [view]);
  const View = view?.component;
  return (
    <div class="shell">
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        To the view
      </button>
      <Header />
      <Nav />
      <main class="main" ref={main} id="main" tabIndex={-1} aria-label={view?.title}>
        <Trouble />
        {View && (
          <Guarded key={view.id} what={view.title}>
            {view.needsModel && model.value.status !== "ready" ? <NeedsModel /> : <View />}
          </Guarded>
        )}
      </main>
      {store.slice(TOUR).value.on && (
        <Guarded what="The tour">
          <TourCard />
        </Guarded>
      )}
      <Status />
      <Toasts />
      {keepOpen.value && (
        <Guarded what={keepOpen.value === "code" ? "The program" : "The history"}>
          <KeepDialog />
        </Guarded>
      )}
      <Help />
    </div>
  );
}

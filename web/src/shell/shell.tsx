import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { keepOpen } from "../keep/keep-open.ts";
import { model } from "../model.ts";
import { store } from "../state.ts";
import { listenForKeys } from "../ui/keys.ts";
import { later } from "../ui/later.tsx";
import { Toasts } from "../ui/toasts.tsx";
import { TOUR } from "../views/tour/tour-slice.ts";
import { viewNamed } from "../views/views.ts";
import { listenForDrops } from "./drop.ts";
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
        {View && (view.needsModel && model.value.status !== "ready" ? <NeedsModel /> : <View />)}
      </main>
      {store.slice(TOUR).value.on && <TourCard />}
      <Status />
      <Toasts />
      {keepOpen.value && <KeepDialog />}
      <Help />
    </div>
  );
}

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { KeepDialog } from "../keep/keep-dialog.tsx";
import { model } from "../model.ts";
import { store } from "../state.ts";
import { listenForKeys } from "../ui/keys.ts";
import { Toasts } from "../ui/toasts.tsx";
import { TourCard } from "../views/tour/tour-card.tsx";
import { viewNamed } from "../views/views.ts";
import { listenForDrops } from "./drop.ts";
import { Header } from "./header.tsx";
import { Help } from "./help.tsx";
import { Nav } from "./nav.tsx";
import { NeedsModel } from "./needs-model.tsx";
import { shortcuts } from "./shortcuts.ts";
import { Status } from "./status.tsx";
import { Trouble } from "./trouble.tsx";

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
      <TourCard />
      <Status />
      <Toasts />
      <KeepDialog />
      <Help />
    </div>
  );
}

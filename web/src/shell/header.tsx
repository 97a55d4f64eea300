import type { JSX } from "preact";
import { openKeep } from "../keep/keep-open.ts";
import { linkTo } from "../navigation.ts";
import { store } from "../state.ts";
import { Icon, type IconName } from "../ui/icons.tsx";
import { nextTheme, type Theme, theme } from "../ui/theme.ts";
import { toast, toastError } from "../ui/toasts.tsx";
import { Facts } from "./facts.tsx";
import { openHelp } from "./help-open.ts";

const THEME_ICONS: Record<Theme, IconName> = { system: "half", light: "sun", dark: "moon" };

export function Header(): JSX.Element {
  const { undoLabel, redoLabel } = store;
  return (
    <header class="header">
      <h1 class="wordmark">
        xpatch <span>explorer</span>
      </h1>
      <Facts />
      <div class="actions" role="toolbar" aria-label="Page">
        <Action
          icon="undo"
          label={named("Undo", undoLabel.value)}
          off={!undoLabel.value}
          run={() => store.undo()}
        />
        <Action
          icon="redo"
          label={named("Redo", redoLabel.value)}
          off={!redoLabel.value}
          run={() => store.redo()}
        />
        <Action icon="clock" label="History" run={() => openKeep("history")} />
        <Action icon="code" label="Copy as code" run={() => openKeep("code")} />
        <Action icon="link" label="Copy a link to this state" run={copyLink} />
        <Action icon={THEME_ICONS[theme.value]} label={`Theme: ${theme.value}`} run={nextTheme} />
        <Action icon="help" label="Keys" run={openHelp} />
      </div>
    </header>
  );
}

interface ActionProps {
  readonly icon: IconName;
  readonly label: string;
  readonly off?: boolean;
  readonly run: () => void;
}

/** A button that stays in the order of the Tab key when it is off, so that the focus does not fall off the page. */
function Action({ icon, label, off = false, run }: ActionProps): JSX.Element {
  return (
    <button
      type="button"
      class="quiet icon"
      aria-label={label}
      title={label}
      aria-disabled={off}
      onClick={() => off || run()}
    >
      <Icon name={icon} />
    </button>
  );
}

const named = (verb: string, what: string | undefined) => (what ? `${verb}: ${what}` : verb);

async function copyLink(): Promise<void> {
  try {
    await navigator.clipboard.writeText(await linkTo(store.document.peek()));
    toast("The link is copied. It holds the state of the page, not the files that you dropped.");
  } catch (error) {
    toastError(error);
  }
}

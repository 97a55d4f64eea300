import type { JSX } from "preact";
import { addressOf } from "../navigation.ts";
import { store } from "../state.ts";
import { Icon } from "../ui/icons.tsx";
import { VIEWS } from "../views/views.ts";

export function Nav(): JSX.Element {
  return (
    <nav class="nav" aria-label="Views">
      <ul>
        {VIEWS.map(({ id, title, icon }, i) => (
          <li key={id}>
            <a
              href={addressOf(id)}
              aria-current={store.view.value === id ? "page" : undefined}
              aria-keyshortcuts={String(i + 1)}
            >
              <Icon name={icon} />
              {title}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}

import { render } from "preact";
import "./style/theme.css";
import "./style/base.css";
import "./style/shell.css";
import "./style/parts.css";
import { followSession } from "./model.ts";
import { startNavigation } from "./navigation.ts";
import { connect } from "./session.ts";
import { Shell } from "./shell/shell.tsx";
import { store } from "./state.ts";
import { followTheme } from "./ui/theme.ts";
import { toastError } from "./ui/toasts.tsx";
import { VIEWS } from "./views/views.ts";

followTheme();
await startNavigation(store, { views: VIEWS.map(({ id }) => id), onError: toastError });
followSession();
void connect({ kind: "tab" });
render(<Shell />, document.querySelector("#app")!);
